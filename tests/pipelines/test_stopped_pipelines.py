"""Pipelines that fail at their training or at their gate: they stop there, tell of it, and register nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ops.airflow_api import FINISHED_STATES, AirflowApi
from ops.target import target_of
from tests.end_to_end.platform import client
from tests.pipelines.notifications import failures_queue
from tests.pipelines.tracking_server import Mlflow

pytestmark = pytest.mark.platform
RUN_SECONDS = 900
GRID = {"grid": {"max_depth": [3], "n_estimators": [20]}}
QUICK = {"sample": 5_000, "rounds": 2, "tuning_jobs": 1}
CLUSTER = "updraft-local"
GROUPS = ("updraft-local-flights", "updraft-local-insurance")


@pytest.fixture(scope="module")
def airflow(platform: dict[str, Any]) -> AirflowApi:
    assert platform["push"]
    return target_of("local").airflow()


@pytest.fixture(scope="module")
def mlflow(platform: dict[str, Any]) -> Mlflow:
    return Mlflow(platform["urls"]["mlflow"], platform["credentials"]["mlflow"])


@pytest.fixture(scope="module")
def told(airflow: AirflowApi) -> Iterator[Callable[[str], list[dict[str, str]]]]:
    """What the topic of failed runs says of a run."""
    assert airflow
    with failures_queue("stopped-pipelines-failures") as of_run:
        yield of_run


def run(
    airflow: AirflowApi, dag_id: str, conf: dict[str, Any], meanwhile: Callable[[], None]
) -> tuple[str, str, dict[str, str]]:
    """Run to the end, doing something each second; the run's id and state, and the state of each task."""
    run_id = airflow.trigger(dag_id, conf)["dag_run_id"]
    deadline = time.monotonic() + RUN_SECONDS
    while (state := airflow.run(dag_id, run_id)["state"]) not in FINISHED_STATES:
        assert time.monotonic() < deadline, f"{run_id} is still {state}"
        meanwhile()
        time.sleep(1)
    tasks = {each["task_id"]: each["state"] for each in airflow.task_instances(dag_id, run_id)}
    return run_id, state, tasks


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


def assert_stopped(
    ran: tuple[str, str, dict[str, str]], at: str, before: list[str], told: Callable[[str], Any]
) -> None:
    """It failed at that task alone, told of it, left no job, and registered nothing."""
    run_id, state, tasks = ran
    assert state == "failed"
    assert [name for name, value in tasks.items() if value == "failed"] == [at]
    [message] = told(run_id)
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
    assert_stopped(run(airflow, dag_id, conf, stop_trainings), at, before, told)


def test_model_below_the_threshold_is_not_registered(airflow: AirflowApi, told: Callable[[str], Any]) -> None:
    before = registered()
    ran = run(airflow, "sagemaker_training", QUICK | {"threshold": 0.99}, lambda: None)
    assert_stopped(ran, "gate", before, told)
    assert ran[2]["register"] == ran[2]["transform"] == "upstream_failed"


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
    run_id, state, tasks = run(airflow, dag_id, GRID, stop)
    assert state == "failed"
    assert tasks[at] == "failed"
    assert tasks["register"] == "upstream_failed"
    assert tasks["close_search"] == "success"
    assert mlflow.run_of(run_id, "open_search")["status"] == "FAILED"
    [message] = told(run_id)
    assert at in message["Message"]
    assert registered() == before
