"""A DAG run as MLflow has it, the chain from each of its ends, and a tracking server that goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests

from ops.airflow_api import AirflowApi
from runtime.lineage import names
from runtime.lineage.tracking import Tracking
from tests.end_to_end.platform import client, updraft

pytestmark = pytest.mark.platform
DAG = "sagemaker_training"
CONF = {"sample": 5000, "rounds": 10, "tuning_jobs": 1, "threshold": 0.5}
# An exporter that could not reach the server tries again after half a minute at the latest.
SECONDS = 60
CLUSTER = "updraft-local"


def command(*arguments: str) -> dict[str, Any]:
    ran = updraft(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def wait_until(is_so: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def tracking(platform: dict[str, Any]) -> Tracking:
    login = platform["credentials"]["mlflow"]
    return Tracking(platform["urls"]["mlflow"], username=login["username"], password=login["password"])


@pytest.fixture(scope="module")
def run(platform: dict[str, Any]) -> dict[str, Any]:
    """A training that has ended: `dag_id`, `run_id`, and the bundle `version` that it ran on."""
    ran = command("run", DAG, "--conf", json.dumps(CONF), "--wait")
    assert ran["state"] == "success"
    return ran | {"version": platform["push"]["version"]}


TASKS = {
    "extract", "split", "prepare", "train", "tune", "evaluate", "gate", "register", "transform", "summary",
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(run: dict[str, Any], tracking: Tracking) -> dict[str, dict[str, Any]]:
    """The runs of the DAG run by their names, with tags, params and metrics as mappings."""
    return wait_until_recorded(tracking, run["run_id"], TASKS)


def wait_until_recorded(tracking: Tracking, run_id: str, tasks: set[str]) -> dict[str, dict[str, Any]]:
    def look() -> dict[str, dict[str, Any]] | None:
        wanted = f"tags.{names.DAG_RUN_KEY} = '{names.dag_run_key(DAG, run_id)}'"
        found = {
            each["info"]["run_name"]: {
                "end_time": None,
                **each["info"],
                **{
                    kind: {item["key"]: item["value"] for item in each["data"].get(kind, [])}
                    for kind in ("tags", "params", "metrics")
                },
            }
            for each in tracking.search([tracking.experiment(DAG)], wanted)
        }
        # The scheduler's exporter may be faster than the worker's.
        is_complete = {run_id, *tasks} <= set(found) and all(each["end_time"] for each in found.values())
        return found if is_complete else None

    found: dict[str, dict[str, Any]] = wait_until(look, f"the end of {run_id} was not recorded")
    return found


def test_dag_run_is_a_run_with_its_tasks_nested(run: dict[str, Any], recorded: dict[str, Any]) -> None:
    assert set(recorded) == {run["run_id"], *TASKS}
    parent = recorded[run["run_id"]]
    assert parent["status"] == "FINISHED"
    assert (parent["params"]["rounds"], parent["params"]["max_depth"]) == ("10", "6")
    assert parent["metrics"]["tasks/success"] == len(TASKS)
    assert parent["metrics"]["duration_seconds"] > 0
    for name in TASKS:
        task = recorded[name]
        assert (task["status"], task["tags"]["state"]) == ("FINISHED", "success")
        assert task["tags"][names.PARENT] == parent["run_id"]
        assert task["tags"]["bundle_version"] == run["version"]
        assert task["metrics"]["duration_seconds"] >= 0
    assert recorded["train"]["tags"]["operator"] == "SageMakerJobOperator"
    assert recorded["train"]["tags"]["sagemaker_job_arn"].endswith(
        recorded["train"]["tags"]["sagemaker_job_name"]
    )
    assert recorded["train"]["metrics"]["billable_seconds"] > 0
    assert parent["tags"]["model_package_arn"] == recorded["register"]["tags"]["model_package_arn"]


def test_what_was_written_is_measured(recorded: dict[str, Any]) -> None:
    split = recorded["split"]
    assert "unmeasured" not in split["tags"]
    [source] = [value for name, value in split["metrics"].items() if name.endswith("raw/flights.csv/rows")]
    assert source == CONF["sample"]
    parts = {
        name: value
        for name, value in split["metrics"].items()
        if name.startswith("destination/") and name.endswith(".csv/rows")
    }
    assert len(parts) == 3
    assert sum(parts.values()) == CONF["sample"]
    for label in split["params"]:
        assert split["metrics"][f"{label}/size_bytes"] > 0
        assert (
            split["metrics"][f"{label}/created_at"] <= split["metrics"][f"{label}/modified_at"] <= time.time()
        )


def test_graph_and_source_are_artifacts(
    platform: dict[str, Any], run: dict[str, Any], recorded: dict[str, Any]
) -> None:
    login = platform["credentials"]["mlflow"]

    def artifact(path: str) -> str:
        answer = requests.get(
            f"{platform['urls']['mlflow']}/get-artifact",
            params={"run_id": recorded[run["run_id"]]["run_id"], "path": path},
            auth=(login["username"], login["password"]),
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    assert '["register"]' in artifact("dag/graph.mmd")
    assert "def sagemaker_training()" in artifact("dag/sagemaker_training.py")


def test_chain_is_walked_from_each_of_its_ends(run: dict[str, Any], recorded: dict[str, Any]) -> None:
    arn = recorded["register"]["tags"]["model_package_arn"]
    version = arn.rsplit("/", 1)[1]
    ends = [
        recorded[run["run_id"]]["run_id"], recorded["train"]["run_id"], f"{DAG}/{run['run_id']}", run["version"],
        recorded["train"]["tags"]["sagemaker_job_name"], recorded["tune"]["tags"]["sagemaker_job_name"], arn,
        f"updraft-local-flights/{version}",
    ]  # fmt: skip
    for end in ends:
        runs = command("lineage", end)["dag_runs"]
        [found] = [each for each in runs if each["run_id"] == run["run_id"]]
        assert found["bundle_version"] == run["version"], end
        assert found["mlflow_run_id"] == recorded[run["run_id"]]["run_id"]
        assert {job["task"] for job in found["jobs"]} >= {"prepare", "train", "tune", "evaluate", "transform"}
        assert [model["arn"] for model in found["models"]] == [arn]
        assert len(found["tasks"]) == 10


@pytest.mark.usefixtures("platform")
def test_unknown_id_says_what_is_allowed() -> None:
    refused = updraft("lineage", "nobody-knows-it", "--json")
    assert refused.returncode == 1
    assert "SageMaker job's name" in json.loads(refused.stdout)["error"]


@pytest.mark.usefixtures("recorded")
def test_server_that_goes_away_fails_no_task_and_what_happened_meanwhile_is_recorded_later(
    platform: dict[str, Any], tracking: Tracking
) -> None:
    airflow = airflow_of(platform)
    set_mlflow(0)
    try:
        run_id = airflow.trigger(DAG, CONF)["dag_run_id"]
        wait_until(lambda: "split" in succeeded(airflow, run_id), "split did not end", SECONDS * 6)
        # By hand: the webserver tells of it, the scheduler doesn't.
        airflow._send("PATCH", f"/api/v2/dags/{DAG}/dagRuns/{quote(run_id)}", json={"state": "failed"})
        done = succeeded(airflow, run_id)
    finally:
        set_mlflow(1)
    found = wait_until_recorded(tracking, run_id, done)
    assert found.pop(run_id)["status"] == "FAILED"
    assert {name for name, each in found.items() if each["status"] == "FINISHED"} == done
    assert all(each["status"] in ("FINISHED", "FAILED", "KILLED") for each in found.values())


def airflow_of(platform: dict[str, Any]) -> AirflowApi:
    login = platform["credentials"]["webserver"]
    return AirflowApi(platform["urls"]["webserver"], username=login["username"], password=login["password"])


def succeeded(airflow: AirflowApi, run_id: str) -> set[str]:
    return {task["task_id"] for task in airflow.task_instances(DAG, run_id) if task["state"] == "success"}


def set_mlflow(count: int) -> None:
    """Have so many tracking servers, and wait for it."""
    ecs = client("ecs")
    ecs.update_service(cluster=CLUSTER, service="mlflow", desiredCount=count)

    def healthy() -> int:
        arns = ecs.list_tasks(cluster=CLUSTER, serviceName="mlflow")["taskArns"]
        tasks = ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"] if arns else []
        return len(tasks) if count == 0 else sum(task.get("healthStatus") == "HEALTHY" for task in tasks)

    wait_until(lambda: healthy() == count, f"not {count} tracking servers", SECONDS * 3)
