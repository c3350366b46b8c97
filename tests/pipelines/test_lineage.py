"""A DAG run as MLflow has it, the chain from each of its ends, and a tracking server that goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from runtime.lineage import names
from runtime.lineage.tracking import Tracking
from tests.end_to_end.platform import client, updraft

pytestmark = pytest.mark.platform
DAG = "sagemaker_training"
CONF = {"sample": 8000, "rounds": 10, "tuning_jobs": 1, "threshold": 0.5}
# The scheduler's exporter hands over the end of a run after the command has seen it.
SECONDS = 30
CLUSTER = "updraft-local"


def command(*arguments: str) -> dict[str, Any]:
    ran = updraft(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def wait_until(is_so: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
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


@pytest.fixture(scope="module")
def recorded(run: dict[str, Any], tracking: Tracking) -> dict[str, dict[str, Any]]:
    """The runs of the DAG run by their names, with tags, params and metrics as mappings."""
    return wait_until_recorded(tracking, run["run_id"])


def wait_until_recorded(tracking: Tracking, run_id: str) -> dict[str, dict[str, Any]]:
    def look() -> dict[str, dict[str, Any]] | None:
        wanted = f"tags.{names.DAG_RUN_KEY} = '{names.dag_run_key(DAG, run_id)}'"
        found = {
            each["info"]["run_name"]: {
                **each["info"],
                **{
                    kind: {item["key"]: item["value"] for item in each["data"].get(kind, [])}
                    for kind in ("tags", "params", "metrics")
                },
            }
            for each in tracking.search([tracking.experiment(DAG)], wanted)
        }
        return found if found.get(run_id, {}).get("status") in ("FINISHED", "FAILED") else None

    found: dict[str, dict[str, Any]] = wait_until(look, f"the end of {run_id} was not recorded")
    return found


def test_dag_run_is_a_run_with_its_tasks_nested(run: dict[str, Any], recorded: dict[str, Any]) -> None:
    tasks = {
        "extract", "split", "prepare", "train", "tune", "evaluate", "gate", "register", "transform", "summary",
    }  # fmt: skip
    assert set(recorded) == {run["run_id"], *tasks}
    parent = recorded[run["run_id"]]
    assert parent["status"] == "FINISHED"
    assert (parent["params"]["rounds"], parent["params"]["max_depth"]) == ("10", "6")
    assert parent["metrics"]["tasks/success"] == len(tasks)
    assert parent["metrics"]["duration_seconds"] > 0
    for name in tasks:
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
def test_tracking_server_that_goes_away_fails_no_task_and_what_happened_is_recorded_later(
    tracking: Tracking,
) -> None:
    ecs = client("ecs")
    ecs.update_service(cluster=CLUSTER, service="mlflow", desiredCount=0)
    try:
        wait_until(
            lambda: not ecs.list_tasks(cluster=CLUSTER, serviceName="mlflow")["taskArns"], "mlflow still runs"
        )
        ran = command("run", DAG, "--conf", json.dumps(CONF), "--wait")
        assert ran["state"] == "success"
    finally:
        ecs.update_service(cluster=CLUSTER, service="mlflow", desiredCount=1)
        # The exporters try again within half a minute of its return.
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not is_up(tracking):
            time.sleep(1)
    time.sleep(30)
    found = wait_until_recorded(tracking, ran["run_id"])
    assert len(found) == 11
    assert all(each["status"] == "FINISHED" for each in found.values())


def is_up(tracking: Tracking) -> bool:
    try:
        return requests.get(f"{tracking.url}/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False
