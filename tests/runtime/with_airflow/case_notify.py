"""The notification as the dag-processor makes it: from the scheduler's request to the message."""

from __future__ import annotations

import json
import os
import tempfile
import unittest
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import botocore.session
import structlog
from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun, TaskInstance
from airflow.callbacks.callback_requests import DagCallbackRequest, DagRunContext
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.dag_processing.processor import _execute_callbacks
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, GetTaskStates, TaskStatesResult
from botocore.stub import ANY, Stubber

FILE = """
from airflow.sdk import dag, task
from runtime.notify import notify_failure

@dag(schedule=None, on_failure_callback=notify_failure)
def nightly():
    @task
    def load():
        pass
    load()

nightly()
"""
TOPIC = "arn:aws:sns:us-east-1:000000000000:failures"
RUN_ID = "manual__2026-11-21T10:00:00+00:00"
SETTINGS = {
    "region": "us-east-1", "role_arn": "role", "training_image": "image", "data_bucket": "data",
    "model_package_group": "models", "subnet_ids": [], "security_group_ids": [], "instance_types": {},
    "max_runtime_seconds": 60, "poll_seconds": 1, "monthly_budget_usd": 1, "usd_per_hour": {},
    "failures_topic_arn": TOPIC,
}  # fmt: skip


class Notification(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "nightly.py").write_text(FILE)
        self.stubbers = {name: self.stubbed(name) for name in ("ssm", "sns")}
        self.stubbers["ssm"].add_response(
            "get_parameter",
            {"Parameter": {"Name": "n", "Value": json.dumps(SETTINGS)}},
            {"Name": "/updraft/test/workflows"},
        )
        self.sent: dict[str, Any] = {}
        self.stubbers["sns"].client.meta.events.register(
            "provide-client-params.sns.Publish", lambda params, **_: self.sent.update(params)
        )
        self.stubbers["sns"].add_response("publish", {"MessageId": "1"}, {"TopicArn": TOPIC, "Subject": ANY, "Message": ANY})  # fmt: skip
        environment = {
            "UPDRAFT_PROJECT": "updraft",
            "UPDRAFT_ENVIRONMENT": "test",
            "UPDRAFT_SSM_PREFIX": "/updraft/test",
        }
        for patch in (
            mock.patch.object(boto3, "client", lambda name, **_: self.stubbers[name].client),
            mock.patch.dict(os.environ, environment),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def stubbed(self, service: str) -> Stubber:
        client = botocore.session.get_session().create_client(
            service, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        stubber = Stubber(client)
        stubber.activate()
        self.addCleanup(stubber.deactivate)
        return stubber

    def request(self, reason: str, task_id: str | None) -> DagCallbackRequest:
        now = datetime(2026, 11, 21, 10, tzinfo=UTC)
        run = DagRun(
            dag_id="nightly", run_id=RUN_ID, logical_date=None, data_interval_start=None, data_interval_end=None,
            run_after=now, start_date=now, end_date=now, run_type="manual", state="failed",
            consumed_asset_events=[], partition_key=None,
        )  # fmt: skip
        instance = task_id and TaskInstance(
            id=uuid.uuid4(), task_id=task_id, dag_id="nightly", run_id=RUN_ID, try_number=1,
            dag_version_id=uuid.uuid4(),
        )  # fmt: skip
        return DagCallbackRequest(
            filepath="nightly.py", bundle_name="updraft", bundle_version=None, dag_id="nightly", run_id=RUN_ID,
            context_from_server=DagRunContext(dag_run=run, last_ti=instance or None), is_failure_callback=True,
            msg=reason,
        )  # fmt: skip

    def execute(self, request: DagCallbackRequest, answer: Any) -> None:
        bag = BundleDagBag(
            dag_folder=str(self.folder), bundle_path=self.folder, bundle_name="updraft", load_op_links=False
        )
        self.assertEqual(bag.import_errors, {})
        supervisor = mock.Mock(spec=["send"])
        supervisor.send.side_effect = lambda message: answer if isinstance(message, GetTaskStates) else None
        with mock.patch.object(task_runner, "SUPERVISOR_COMMS", supervisor, create=True):
            _execute_callbacks(bag, [request], structlog.get_logger())

    def test_failed_run_is_told_with_its_failed_tasks(self) -> None:
        states = TaskStatesResult(task_states={RUN_ID: {"load": "failed", "after": "upstream_failed"}})
        self.execute(self.request("task_failure", "load"), states)
        self.assertEqual(self.sent["Subject"], "[updraft-test] nightly failed: load")
        self.assertIn(
            "/dags/nightly/runs/manual__2026-11-21T10%3A00%3A00%2B00%3A00/tasks/load", self.sent["Message"]
        )
        self.assertIn("did not run: after", self.sent["Message"])

    def test_run_that_took_too_long_is_told_though_no_task_failed(self) -> None:
        states = TaskStatesResult(task_states={RUN_ID: {"load": "skipped"}})
        self.execute(self.request("timed_out", "load"), states)
        self.assertEqual(self.sent["Subject"], "[updraft-test] nightly failed: timed_out")

    def test_run_without_a_task_is_told(self) -> None:
        self.execute(self.request("all_tasks_deadlocked", None), None)
        self.assertEqual(self.sent["Subject"], "[updraft-test] nightly failed: all_tasks_deadlocked")

    def test_states_that_can_not_be_asked_for_hide_nothing(self) -> None:
        self.execute(self.request("task_failure", "load"), ErrorResponse())
        self.assertEqual(self.sent["Subject"], "[updraft-test] nightly failed: load")


if __name__ == "__main__":
    unittest.main()
