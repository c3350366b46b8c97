"""What each Spark engine is asked: the DAG's own operators, against botocore's models and a Databricks of our own."""

from __future__ import annotations

import json
import os
import sys
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "dags"))

import boto3  # noqa: E402
from airflow.dag_processing.dagbag import DagBag  # noqa: E402
from airflow.providers.amazon.aws.hooks.emr import EmrServerlessHook  # noqa: E402
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator  # noqa: E402
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred  # noqa: E402
from botocore.stub import ANY, Stubber  # noqa: E402
from flights.spark import Search, engine  # noqa: E402

from ml.flights import spark_grid_search  # noqa: E402
from runtime.settings import WorkflowSettings  # noqa: E402
from tests.runtime.with_airflow.fake_sagemaker import SETTINGS  # noqa: E402

GRID = {"max_depth": [4, 8], "n_estimators": [10]}
ROLE = "arn:aws:iam::123456789012:role/spark"
PROFILE = "arn:aws:iam::123456789012:instance-profile/spark"
ENGINES: dict[str, dict[str, Any]] = {
    "ecs": {
        "cluster": "updraft-dev",
        "task_definition": "updraft-dev-spark",
        "container": "spark",
        "log_group": None,
        "tags": {"updraft:program": "spark"},
        "subnet_ids": ["subnet-1"],
        "security_group_ids": ["sg-1"],
        "assign_public_ip": "DISABLED",
    },
    "emr-serverless": {"application_id": "00f1", "execution_role_arn": ROLE},
    "databricks": {
        "connection_id": "databricks_default",
        "spark_version": "16.4.x-scala2.12",
        "node_type": "m5.xlarge",
        "workers": 2,
        "instance_profile_arn": PROFILE,
    },
}
CONTEXT = {
    "ti": SimpleNamespace(
        dag_id="grid_search_spark", task_id="t", run_id="r", map_index=-1, xcom_push=lambda **_: None
    )
}


def settings(name: str) -> WorkflowSettings:
    return WorkflowSettings(**{**vars(SETTINGS), "spark": {"engine": name, **ENGINES.get(name, {})}})


def search(name: str) -> Search:
    return Search(settings(name), "flights/r", GRID, "grid_search_spark r")


def operator(task_id: str, name: str) -> Any:
    """The DAG's task, with what `plan` hands it in place of the templates."""
    [dag] = [dag for dag in DagBag(ROOT / "dags").dags.values() if dag.dag_id == "grid_search_spark"]
    task = dag.get_task(task_id)
    for key, value in search(name).operator_arguments().items():
        assert key in task.template_fields, f"{task_id} has no templated {key}"
        setattr(task, key, value)
    return task


class Databricks(BaseHTTPRequestHandler):
    """Jobs API 2.2: takes a submission, and says of its run that it has ended well."""

    asked: dict[str, Any]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked = {"path": self.path, "token": self.headers["Authorization"], "body": body}
        self._answer({"run_id": 7})

    def do_GET(self) -> None:
        state = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}
        self._answer({"run_id": 7, "run_page_url": "http://localhost/7", "state": state})

    def _answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class EnginesTest(unittest.TestCase):
    def test_without_an_engine_the_run_says_how_to_choose_one(self) -> None:
        with self.assertRaisesRegex(AirflowFailException, r"set \[spark\] engine = \"ecs\""):
            engine(WorkflowSettings(**vars(SETTINGS)))

    def test_ecs_runs_the_newest_revision_with_program_inputs_and_grid(self) -> None:
        client = boto3.client(
            "ecs", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        )
        arn = "arn:aws:ecs:us-east-1:123456789012:task/updraft-dev/1"
        with Stubber(client) as stub, mock.patch.object(EcsRunTaskOperator, "client", client):
            stub.add_response("list_tasks", {"taskArns": []})
            stub.add_response(
                "run_task",
                {"tasks": [{"taskArn": arn}], "failures": []},
                {
                    "cluster": "updraft-dev",
                    "taskDefinition": "updraft-dev-spark",
                    "launchType": "FARGATE",
                    "startedBy": ANY,
                    "tags": [{"key": "updraft:program", "value": "spark"}],
                    "networkConfiguration": {
                        "awsvpcConfiguration": {
                            "subnets": ["subnet-1"],
                            "securityGroups": ["sg-1"],
                            "assignPublicIp": "DISABLED",
                        }
                    },
                    "overrides": ANY,
                },
            )
            ended = {
                "taskArn": arn,
                "lastStatus": "STOPPED",
                "containers": [{"name": "spark", "exitCode": 0, "lastStatus": "STOPPED"}],
            }
            for _ in range(2):
                stub.add_response("describe_tasks", {"tasks": [ended], "failures": []})
            task = operator("on_ecs", "ecs")
            task.execute(CONTEXT)
            stub.assert_no_pending_responses()
        [override] = task.overrides["containerOverrides"]
        self.assertEqual(override["name"], "spark")
        self.assertEqual(
            override["command"][:6],
            [
                "--program", "s3://data/flights/r/spark/program.py", "--output", "s3://data/flights/r/spark",
                "--grid", json.dumps(GRID),
            ],
        )  # fmt: skip
        self.assertIn("test=s3://data/flights/r/prepared/test/test.csv", override["command"])

    def test_emr_serverless_starts_a_bounded_job_that_logs_its_events(self) -> None:
        client = boto3.client(
            "emr-serverless", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        )
        application = {
            "applicationId": "00f1", "arn": "arn:aws:emr-serverless:us-east-1:123456789012:/applications/00f1",
            "releaseLabel": "emr-7.9.0", "type": "SPARK", "state": "STARTED", "createdAt": 0, "updatedAt": 0,
        }  # fmt: skip
        with Stubber(client) as stub, mock.patch.object(EmrServerlessHook, "conn", client):
            stub.add_response("get_application", {"application": application}, {"applicationId": "00f1"})
            stub.add_response(
                "start_job_run",
                {
                    "applicationId": "00f1",
                    "jobRunId": "1",
                    "arn": f"{application['arn']}/jobruns/1",
                    "ResponseMetadata": {"HTTPStatusCode": 200},
                },
                {
                    "clientToken": ANY,
                    "applicationId": "00f1",
                    "executionRoleArn": ROLE,
                    "name": "grid_search_spark r",
                    "executionTimeoutMinutes": 60,
                    "jobDriver": {
                        "sparkSubmit": {
                            "entryPoint": "s3://data/flights/r/spark/program.py",
                            "entryPointArguments": search("emr-serverless").program_arguments(),
                        }
                    },
                    "configurationOverrides": {
                        "monitoringConfiguration": {
                            "s3MonitoringConfiguration": {"logUri": "s3://data/flights/r/spark/events/"}
                        }
                    },
                },
            )
            task = operator("on_emr_serverless", "emr-serverless")
            with mock.patch.object(task, "persist_links"), self.assertRaises(TaskDeferred) as deferred:
                task.execute(CONTEXT)
            stub.assert_no_pending_responses()
        _, values = deferred.exception.trigger.serialize()
        self.assertEqual((values["job_id"], values["cancel_on_kill"]), ("1", True))

    def test_databricks_submits_one_task_on_a_cluster_of_its_own(self) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Databricks)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        connection = {
            "conn_type": "databricks",
            "schema": "http",
            "host": "127.0.0.1",
            "port": server.server_port,
            "password": "token-1",
        }
        task = operator("on_databricks", "databricks")
        task.durable = False
        with mock.patch.dict(os.environ, {"AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection)}):
            task.execute(CONTEXT)
        self.assertEqual(Databricks.asked["token"], "Bearer token-1")
        self.assertEqual(Databricks.asked["path"], "/api/2.2/jobs/runs/submit")
        body = Databricks.asked["body"]
        # The provider writes every number as text.
        self.assertEqual((body["run_name"], body["timeout_seconds"]), ("grid_search_spark r", "3600"))
        [submitted] = body["tasks"]
        self.assertEqual(
            submitted["spark_python_task"],
            {
                "python_file": "s3://data/flights/r/spark/program.py",
                "parameters": search("databricks").program_arguments(),
            },
        )
        self.assertEqual(submitted["new_cluster"]["aws_attributes"]["instance_profile_arn"], PROFILE)

    def test_every_engine_hands_the_program_arguments_that_it_takes(self) -> None:
        options = spark_grid_search._options(search("databricks").program_arguments())
        self.assertEqual(json.loads(options.grid), GRID)
        self.assertEqual(options.validation, "s3://data/flights/r/prepared/validation/validation.csv")
        self.assertEqual(len(spark_grid_search.points(GRID)), 2)


if __name__ == "__main__":
    unittest.main()
