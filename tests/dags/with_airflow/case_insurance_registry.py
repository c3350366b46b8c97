"""The gate and the registries: who gets past, and what is registered."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "dags"))

import botocore.session
from airflow.sdk.exceptions import AirflowFailException
from botocore.stub import Stubber
from insurance import registry

from runtime.settings import WorkflowSettings

ARN = "arn:aws:sagemaker:us-east-1:000000000000:model-package/updraft-local-insurance/1"
SETTINGS = WorkflowSettings(
    region="us-east-1",
    role_arn="arn:aws:iam::000000000000:role/jobs-of-an-environment",
    training_image="image",
    data_bucket="data",
    model_package_group="updraft-local-flights",
    subnet_ids=["subnet-1"],
    security_group_ids=["sg-1"],
    instance_types={},
    max_runtime_seconds=3600,
    poll_seconds=1,
    monthly_budget_usd=100,
    usd_per_hour={},
    insurance={"model_package_group": "updraft-local-insurance"},
)
REPORT = {
    "policies": 2600,
    "claim_share": 0.11,
    "baseline": {"name": "tariff", "auc": 0.64, "average_precision": 0.17},
    "model": {"auc": 0.7, "average_precision": 0.23},
}
JUDGED = {"metric": "auc", "value": 0.7, "baseline": 0.64}
CONTEXT = {
    "ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1),
    "dag_run": SimpleNamespace(bundle_version="abc"),
}
ENVIRONMENT = {"UPDRAFT_PROJECT": "updraft", "UPDRAFT_ENVIRONMENT": "local"}


class Gate(unittest.TestCase):
    def report(self, auc: float) -> dict[str, Any]:
        return REPORT | {"model": {"auc": auc}}

    def test_model_that_is_better_than_the_tariff_and_good_enough_passes(self) -> None:
        self.assertEqual(registry.judge(self.report(0.7), threshold=0.65), JUDGED)

    def test_model_no_better_than_the_tariff_is_stopped_without_a_retry(self) -> None:
        with self.assertRaisesRegex(
            AirflowFailException, r"no better than the tariff: AUC 0\.640 against 0\.640"
        ):
            registry.judge(self.report(0.64), threshold=0.5)

    def test_model_below_the_threshold_is_stopped_without_a_retry(self) -> None:
        with self.assertRaisesRegex(AirflowFailException, r"AUC of 0\.700, at least 0\.71 is asked for"):
            registry.judge(self.report(0.7), threshold=0.71)


class Registration(unittest.TestCase):
    def setUp(self) -> None:
        session = botocore.session.get_session()
        self.client = session.create_client(
            "sagemaker", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        self.stubber = Stubber(self.client)
        self.stubber.activate()
        self.addCleanup(self.stubber.deactivate)
        for patch in (
            mock.patch("boto3.client", return_value=self.client),
            mock.patch.dict("os.environ", ENVIRONMENT),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def register(self) -> dict[str, str]:
        return registry.register(
            SETTINGS,
            name="updraft-local-model-train-1",
            model_uri="s3://d/m.tar.gz",
            judged=JUDGED,
            context=CONTEXT,
        )

    def test_package_runs_the_insurance_programs_and_goes_to_its_own_group(self) -> None:
        self.stubber.add_response(
            "create_model", {"ModelArn": "arn:aws:sagemaker:us-east-1:0:model/m" + "x" * 10}
        )
        sent: dict[str, Any] = {}
        self.client.meta.events.register(
            "provide-client-params.sagemaker.CreateModelPackage", lambda params, **_: sent.update(params)
        )
        self.stubber.add_response("create_model_package", {"ModelPackageArn": ARN})
        made = self.register()
        self.assertEqual(made["model_package_arn"], ARN)
        self.assertEqual(sent["ModelPackageGroupName"], "updraft-local-insurance")
        self.assertEqual(sent["ModelApprovalStatus"], "Approved")
        [container] = sent["InferenceSpecification"]["Containers"]
        self.assertEqual(container["Environment"], {"ML_PROBLEM": "insurance"})

    def test_repeating_it_takes_the_model_that_is_there(self) -> None:
        self.stubber.add_client_error(
            "create_model", "ValidationException", "Cannot create already existing model"
        )
        self.stubber.add_response("create_model_package", {"ModelPackageArn": ARN})
        self.assertEqual(self.register()["model_name"], "updraft-local-model-train-1")

    def test_another_error_is_not_hidden(self) -> None:
        self.stubber.add_client_error("create_model", "ValidationException", "Could not assume role")
        with self.assertRaisesRegex(Exception, "Could not assume role"):
            self.register()


class Tracking(unittest.TestCase):
    def test_where_tracking_is_off_nothing_is_recorded_and_the_task_succeeds(self) -> None:
        with mock.patch.dict("os.environ", ENVIRONMENT | {"MLFLOW_TRACKING_URI": ""}):
            recorded = registry.record(
                registered={"model_package_arn": ARN, "model_uri": "s3://d/m", "model_name": "m"},
                report=REPORT,
                parameters={"rounds": 300},
                context=CONTEXT,
            )
        self.assertEqual(recorded, {"mlflow_run_id": None, "model_version": None})


if __name__ == "__main__":
    unittest.main()
