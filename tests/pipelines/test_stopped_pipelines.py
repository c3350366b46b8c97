"""Pipelines that fail at their training or at their gate: they stop there, tell of it, and register nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ops.airflow_api import AirflowApi
from tests.end_to_end.platform import client
from tests.pipelines.notifications import failures_queue
from tests.pipelines.runs import Run, run_to_end
from tests.pipelines.tracking_server import Mlflow

pytestmark = pytest.mark.platform
GRID = {"grid": {"max_depth": [3], "n_estimators": [20]}}
QUICK = {"sample": 5_000, "rounds": 2, "tuning_jobs": 1}
CLUSTER = "updraft-local"
GROUPS = ("updraft-local-flights", "updraft-local-insurance")


@pytest.fixture(scope="module")
def told(airflow: AirflowApi) -> Iterator[Callable[[str], list[dict[str, str]]]]:
    """What the topic of failed runs says of a run."""
    assert airflow
    with failures_queue("stopped-pipelines-failures") as of_run:
        yield of_run


def stop_trainings() -> None:
    """End every training that is no tuning job's from outside, as its account's owner may."""
    sagemaker = client("sagemaker")
    for job in sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]:
        if "TuningJobArn" not in sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]):
            sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])


def stop_spark() -> None:
    """End every Spark task from outside."""
    ecs = client("ecs")
    for arn in ecs.list_tasks(cluster=CLUSTER)["taskArns"]:
        [task] = ecs.describe_tasks(cluster=CLUSTER, tasks=[arn])["tasks"] or [{"containers": []}]
        if any(container["name"] == "spark" for container in task["containers"]):
            ecs.stop_task(cluster=CLUSTER, task=arn, reason="a test of what follows")


def registered() -> list[str]:
    """Every version of the groups that these pipelines register in."""
    sagemaker = client("sagemaker")
    return [
        package["ModelPackageArn"]
        for group in GROUPS
        for package in sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    ]


def assert_stopped(ran: Run, at: str, before: list[str], told: Callable[[str], Any]) -> None:
    """It failed at that task alone, told of it, left no job, and registered nothing."""
    assert ran.state == "failed"
    assert [name for name, state in ran.tasks.items() if state == "failed"] == [at]
    [message] = told(ran.run_id)
    assert at in message["Message"]
    assert "http" in message["Message"]
    for kind in ("training", "processing", "transform"):
        jobs = getattr(client("sagemaker"), f"list_{kind}_jobs")(StatusEquals="InProgress")
        assert jobs[f"{kind.capitalize()}JobSummaries"] == []
    assert registered() == before


@pytest.mark.parametrize(
    ("dag_id", "conf", "at"),
    [
        ("sagemaker_training", QUICK, "train"),
        ("build_model", {"max_depth": 3, "n_estimators": 20}, "train"),
        ("insurance_etl", {}, "model.train"),
    ],
)
def test_training_that_is_stopped_from_outside_stops_the_run(
    dag_id: str, conf: dict[str, Any], at: str, airflow: AirflowApi, told: Callable[[str], Any]
) -> None:
    before = registered()
    assert_stopped(run_to_end(airflow, dag_id, conf, stop_trainings), at, before, told)


def test_model_below_the_threshold_is_not_registered(airflow: AirflowApi, told: Callable[[str], Any]) -> None:
    before = registered()
    ran = run_to_end(airflow, "sagemaker_training", QUICK | {"threshold": 0.99})
    assert_stopped(ran, "gate", before, told)
    assert ran.tasks["register"] == ran.tasks["transform"] == "upstream_failed"


@pytest.mark.parametrize(
    ("dag_id", "stop", "at"),
    [
        ("grid_search", stop_trainings, "trial.train"),
        pytest.param(
            "grid_search_spark",
            stop_spark,
            "on_ecs",
            marks=pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs a Java runtime"),
        ),
    ],
)
def test_search_whose_trainings_fail_is_closed_as_failed(
    dag_id: str,
    stop: Callable[[], None],
    at: str,
    airflow: AirflowApi,
    mlflow: Mlflow,
    told: Callable[[str], Any],
) -> None:
    before = registered()
    ran = run_to_end(airflow, dag_id, GRID, stop)
    assert ran.state == "failed"
    assert ran.tasks[at] == "failed"
    assert ran.tasks["register"] == "upstream_failed"
    assert ran.tasks["close_search"] == "success"
    assert mlflow.run_of(ran.run_id, "open_search")["status"] == "FAILED"
    [message] = told(ran.run_id)
    assert at in message["Message"]
    assert registered() == before
