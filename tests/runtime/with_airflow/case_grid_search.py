"""A search whose trial fails: what runs on, what doesn't, and what MLflow has of it. SageMaker's answers are a test's."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

HOME = tempfile.TemporaryDirectory()
DAGS = Path(__file__).resolve().parents[3] / "dags"
os.environ |= {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME.name}/airflow.db",
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "MLFLOW_TRACKING_URI": f"file://{HOME.name}/mlruns",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "UPDRAFT_PROJECT": "updraft",
    "UPDRAFT_ENVIRONMENT": "local",
    "UPDRAFT_SSM_PREFIX": "/updraft/local",
}
sys.path.insert(0, str(DAGS))

from airflow import settings  # noqa: E402
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: E402
from airflow.models import import_all_models  # noqa: E402
from airflow.models.base import Base  # noqa: E402
from airflow.models.dagbundle import DagBundleModel  # noqa: E402
from airflow.models.pool import Pool  # noqa: E402
from airflow.utils.db import synchronize_log_template  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from flights import etl, registry, stages  # noqa: E402

from runtime.sagemaker.operator import SageMakerJobOperator  # noqa: E402
from runtime.settings import WorkflowSettings  # noqa: E402
from tests.runtime.with_airflow.fake_sagemaker import SETTINGS  # noqa: E402

BUNDLE = "dags-folder"
KINDS = ("training", "tuning", "processing", "transform")
ON_CPU = WorkflowSettings(**{**vars(SETTINGS), "instance_types": dict.fromkeys(KINDS, "ml.m5.large")})
GRID = {"max_depth": [3, 6], "n_estimators": [20]}


def run_job(operator: Any, context: Any) -> dict[str, Any]:
    """What a job made; the training with the deeper trees fails."""
    assert context["ti"].task_id == operator.task_id
    asked = operator.request(ON_CPU, **operator.op_kwargs).get("HyperParameters", {})
    if asked.get("max_depth") == "6":
        raise RuntimeError("training job ended Failed: out of memory")
    name = f"{operator.task_id}-{asked.get('max_depth')}"
    return {"name": name, "model_uri": f"s3://data/{name}/model.tar.gz", "billable_seconds": 1}


class SearchTest(unittest.TestCase):
    dag: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        import_all_models()
        Base.metadata.create_all(settings.engine)
        synchronize_log_template()
        Pool.create_or_update_pool("default_pool", 16, "", include_deferred=False)
        with create_session() as session:
            session.add(DagBundleModel(name=BUNDLE))
        bag = DagBag(DAGS / "flights", bundle_name=BUNDLE)
        sync_bag_to_db(bag, BUNDLE, None)
        cls.dag = bag.dags["grid_search"]
        cls.dag.on_failure_callback = None
        for task in cls.dag.tasks:
            task.retries = 0

    def test_failed_trial_ends_the_search_and_both_are_failed_in_mlflow(self) -> None:
        from mlflow import MlflowClient

        answers = {
            (SageMakerJobOperator, "execute"): run_job,
            (etl, "extract"): lambda **_: {},
            (etl, "split"): lambda **_: {},
            (registry, "final_metrics"): lambda _job: {"validation_auc": 0.6},
            (stages, "workflow_settings"): lambda: ON_CPU,
        }
        for (owner, name), answer in answers.items():
            patched = mock.patch.object(owner, name, answer)
            patched.start()
            self.addCleanup(patched.stop)
        run = self.dag.test(run_conf={"grid": GRID})
        states = {(item.task_id, item.map_index): item.state for item in run.get_task_instances()}
        self.assertEqual(run.state, "failed")
        self.assertEqual([states["trial.train", index] for index in (0, 1)], ["success", "failed"])
        self.assertEqual([states["trial.record", index] for index in (0, 1)], ["success", "failed"])
        self.assertEqual((states["best", -1], states["register", -1]), ("upstream_failed",) * 2)
        self.assertEqual(states["close_search", -1], "success")

        client = MlflowClient()
        experiment = client.get_experiment_by_name("flights")
        found = {item.info.run_name: item for item in client.search_runs([experiment.experiment_id])}
        search = next(item for name, item in found.items() if name.startswith("grid_search "))
        self.assertEqual(search.info.status, "FAILED")
        self.assertEqual(found["max_depth 3, n_estimators 20"].info.status, "FINISHED")
        self.assertEqual(found["max_depth 6, n_estimators 20"].info.status, "FAILED")
        parents = {item.data.tags.get("mlflow.parentRunId") for item in found.values() if item is not search}
        self.assertEqual(parents, {search.info.run_id})


if __name__ == "__main__":
    unittest.main()
