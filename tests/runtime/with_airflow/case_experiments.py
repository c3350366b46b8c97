"""Runs and models in MLflow's own file store; nothing without a tracking server; nothing twice."""

from __future__ import annotations

import os
import tempfile
import unittest
from types import SimpleNamespace
from unittest import mock

HOME = tempfile.TemporaryDirectory()
os.environ |= {
    "UPDRAFT_PROJECT": "updraft",
    "UPDRAFT_ENVIRONMENT": "local",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}

from runtime import experiments  # noqa: E402

TRACKED = {"MLFLOW_TRACKING_URI": f"file://{HOME.name}/mlruns"}


def context(map_index: int = -1) -> dict[str, object]:
    instance = SimpleNamespace(
        dag_id="grid_search",
        run_id="manual__2026-01-01T00:00:00+00:00",
        task_id="trial.record",
        map_index=map_index,
        bundle_version="0123456789abcdef",
    )
    return {"ti": instance}


class ExperimentsTest(unittest.TestCase):
    def test_without_a_server_nothing_is_recorded_and_the_log_says_so(self) -> None:
        with mock.patch.dict(os.environ), self.assertLogs("runtime.experiments", "INFO") as logged:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            run_id = experiments.start_run(context(), experiment="flights", name="a")
            experiments.record(run_id, metrics={"auc": 1})
            experiments.end_run(run_id)
            version = experiments.register_model(run_id, name="m", source="s3://b/k", tags={}, description="")
        self.assertEqual((run_id, version, len(logged.output)), (None, None, 1))

    @mock.patch.dict(os.environ, TRACKED)
    def test_search_is_a_run_and_its_trials_are_children(self) -> None:
        from mlflow import MlflowClient

        parent = experiments.start_run(
            context(), experiment="flights", name="grid_search", parameters={"grid.max_depth": [4, 8]}
        )
        trials = [
            experiments.start_run(
                context(index), experiment="flights", name=f"trial {index}", parameters={"max_depth": index},
                parent_id=parent,
            )
            for index in range(2)
        ]  # fmt: skip
        experiments.record(trials[1], metrics={"validation_auc": 0.7}, tags={"sagemaker_job": "job-1"})
        experiments.end_run(trials[1])
        experiments.end_run(trials[0], succeeded=False)
        client = MlflowClient()
        experiment = client.get_experiment_by_name("flights")
        children = client.search_runs([experiment.experiment_id], f"tags.`{experiments.PARENT}` = '{parent}'")
        self.assertEqual({run.info.run_id for run in children}, set(trials))
        good = client.get_run(trials[1])
        self.assertEqual(good.info.status, "FINISHED")
        self.assertEqual(good.data.metrics, {"validation_auc": 0.7})
        self.assertEqual(good.data.params, {"max_depth": "1"})
        self.assertEqual(good.data.tags["updraft:run"], "manual__2026-01-01T00:00:00+00:00")
        self.assertEqual(client.get_run(trials[0]).info.status, "FAILED")

    @mock.patch.dict(os.environ, TRACKED)
    def test_task_that_is_repeated_makes_no_second_run_and_no_second_version(self) -> None:
        first, again = (
            experiments.start_run(context(), experiment="again", name="a", parameters={"max_depth": 3})
            for _ in range(2)
        )
        self.assertEqual(first, again)
        versions = {
            experiments.register_model(
                first, name="model", source="s3://b/model.tar.gz", tags={"k": "v"}, description="d"
            )
            for _ in range(2)
        }
        self.assertEqual(versions, {"1"})

    @mock.patch.dict(os.environ, TRACKED)
    def test_model_that_a_cleared_run_made_anew_is_another_version(self) -> None:
        run_id = experiments.start_run(context(), experiment="cleared", name="a")
        versions = [
            experiments.register_model(
                run_id, name="cleared", source=f"s3://b/{training}/model.tar.gz", tags={}, description=""
            )
            for training in ("first", "second", "first", "second")
        ]
        self.assertEqual(versions, ["1", "2", "1", "2"])


if __name__ == "__main__":
    unittest.main()
