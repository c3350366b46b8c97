"""What the pipelines register: a retry the same model and the same version, a training after a clear another one."""

from __future__ import annotations

import os
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

DAGS = Path(__file__).resolve().parents[3] / "dags"
sys.path.insert(0, str(DAGS))

from airflow.dag_processing.dagbag import DagBag  # noqa: E402
from pets.settings import PetsSettings  # noqa: E402

from tests.runtime.with_airflow.fake_sagemaker import SETTINGS  # noqa: E402

CHOSEN = {"metric": "auc", "value": 0.7, "baseline": 0.6}
REPORT = {"accuracy": 0.95, "baseline": {"accuracy": 0.5}}
Trained = dict[str, str]
# Each DAG's task, and what it is given with a training's end.
REGISTERS: dict[tuple[str, str], Callable[[Trained], dict[str, Any]]] = {
    ("build_model", "register"): lambda trained: {"chosen": CHOSEN, "trained": trained, "mlflow_run_id": None},
    ("grid_search", "register"): lambda trained: {"chosen": CHOSEN, "trained": trained, "mlflow_run_id": None},
    ("sagemaker_training", "register"): lambda trained: {
        "chosen": CHOSEN | {"candidate": "tuned"}, "trained": ended("other"), "tuned": trained,
    },
    ("insurance_etl", "model.register"): lambda trained: {"judged": CHOSEN, "trained": trained},
    ("pet_detection", "ml_engineering.register"): lambda trained: {"report": REPORT, "trained": trained},
}  # fmt: skip


def ended(name: str) -> Trained:
    """What a training returned."""
    return {"name": f"updraft-test-{name}", "model_uri": f"s3://data/{name}/model.tar.gz"}


class SageMaker:
    """Model packages by their client tokens, models by their names."""

    def __init__(self) -> None:
        self.models: set[str] = set()
        self.packages: dict[str, dict[str, Any]] = {}

    def create_model(self, *, ModelName: str, **_: Any) -> None:
        self.models.add(ModelName)

    def create_model_package(self, *, ClientToken: str, **asked: Any) -> dict[str, str]:
        self.packages.setdefault(ClientToken, asked)
        return {"ModelPackageArn": f"arn:aws:sagemaker:us-east-1:0:model-package/g/{len(self.packages)}"}


class Registrations(unittest.TestCase):
    dags: ClassVar[dict[str, Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.dags = DagBag(DAGS).dags

    def setUp(self) -> None:
        self.sagemaker = SageMaker()
        environment = {"UPDRAFT_PROJECT": "updraft", "UPDRAFT_ENVIRONMENT": "test", "MLFLOW_TRACKING_URI": ""}
        pets = PetsSettings("image", "ml.g5.xlarge", "updraft-test-pets", "none")
        for patch in (
            mock.patch.dict(os.environ, environment),
            mock.patch("boto3.client", return_value=self.sagemaker),
            mock.patch("pets.settings.pets_settings", return_value=pets),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def register(self, dag_id: str, task_id: str, trained: Trained, *, try_number: int) -> None:
        """One try of the task, after that training."""
        settings = SimpleNamespace(
            **vars(SETTINGS) | {"insurance": {"model_package_group": "updraft-test-insurance"}}
        )
        instance = SimpleNamespace(
            dag_id=dag_id, run_id="r", task_id=task_id, map_index=-1, try_number=try_number
        )
        context = {"ti": instance, "dag_run": SimpleNamespace(bundle_version="v")}
        function = self.dags[dag_id].get_task(task_id).python_callable
        known = {"get_current_context": lambda: context, "workflow_settings": lambda: settings}
        with mock.patch.dict(function.__globals__, known):
            function(**REGISTERS[dag_id, task_id](trained))

    def test_retry_registers_nothing_twice_and_another_training_is_another_version(self) -> None:
        for dag_id, task_id in REGISTERS:
            with self.subTest(dag_id):
                before = len(self.sagemaker.packages), len(self.sagemaker.models)
                for try_number in (1, 2):
                    self.register(dag_id, task_id, ended(f"{dag_id}-1"), try_number=try_number)
                # The pets' model is served by no endpoint.
                models = int(dag_id != "pet_detection")
                self.assertEqual(len(self.sagemaker.packages) - before[0], 1)
                self.assertEqual(len(self.sagemaker.models) - before[1], models)
                self.register(dag_id, task_id, ended(f"{dag_id}-2"), try_number=1)
                self.assertEqual(len(self.sagemaker.packages) - before[0], 2)
                self.assertEqual(len(self.sagemaker.models) - before[1], 2 * models)
                package = list(self.sagemaker.packages.values())[-1]
                self.assertIn(f"{dag_id}-2/model.tar.gz", str(package))
                self.assertEqual(package["CustomerMetadataProperties"]["run_id"], "r")


if __name__ == "__main__":
    unittest.main()
