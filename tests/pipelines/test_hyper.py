"""Hyper-parameters: started every way with a conf, refused with the reason, recorded and registered for real."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
from typing import Any

import pytest

from tests.end_to_end.platform import Web, client, updraft
from tests.pipelines.tracking_server import Mlflow

pytestmark = pytest.mark.platform
GOOD = {"max_depth": 3, "n_estimators": 20}
# A conf for build_model, and what its refusal says.
BAD: list[tuple[Any, str]] = [
    ({"max_deph": 6}, "build_model has no max_deph; it has max_depth, n_estimators; did you mean max_depth?"),
    (GOOD | {"eta": 0.1}, "build_model has no eta; it has max_depth, n_estimators"),
    ({"max_depth": 0}, "0 is less than the minimum of 1"),
    ({"max_depth": 17}, "17 is greater than the maximum of 16"),
    ({"max_depth": "6"}, "'6' is not of type 'integer'"),
    ({"max_depth": 6.5}, "6.5 is not of type 'integer'"),
    ({"max_depth": None}, "None is not of type 'integer'"),
    ({"n_estimators": 501}, "501 is greater than the maximum of 500"),
    ({"n_estimators": [60]}, "[60] is not of type 'integer'"),
    ({"n_estimators": True}, "True is not of type 'integer'"),
    ([6, 60], "Input should be a valid dictionary"),
]
GRID = {"max_depth": [3, 6], "n_estimators": [20, 40]}
BAD_GRIDS: list[tuple[Any, str]] = [
    ({"grid": GRID | {"eta": [0.1]}}, "Additional properties are not allowed ('eta' was unexpected)"),
    ({"grid": GRID | {"max_depth": [1, 2, 3, 4, 5]}}, "is too long"),
    ({"grid": GRID | {"max_depth": []}}, "[] should be non-empty"),
    ({"grid": GRID | {"n_estimators": [10, 10]}}, "has non-unique elements"),
    ({"grid": {"max_depth": [3]}}, "'n_estimators' is a required property"),
    (GRID, "grid_search has no max_depth, n_estimators; it has grid"),
]
MODEL = "updraft-local-flights"


@pytest.fixture(scope="module")
def api(platform: dict[str, Any]) -> Web:
    """The REST API, with the administrator's token."""
    web, login = Web(platform["urls"]["webserver"]), platform["credentials"]["webserver"]
    token = web.json("POST", "/auth/token", login)["access_token"]
    return Web(web.base_url, {"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
def browser(platform: dict[str, Any]) -> Web:
    """A session of the UI, logged in by its form."""
    web, login = Web(platform["urls"]["webserver"]), platform["credentials"]["webserver"]
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', web.send("GET", "/auth/login/"))
    assert token is not None
    web.send("POST", "/auth/login/", form={"csrf_token": token[1], **login})
    return web


def run_to_its_end(dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
    ran = updraft("run", dag_id, "--conf", json.dumps(conf), "--wait", "--json")
    assert ran.stdout, ran.stderr[-2000:]
    return dict(json.loads(ran.stdout))


def xcom(api: Web, dag_id: str, run_id: str, task_id: str) -> Any:
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
    return api.json("GET", f"{path}?deserialize=true")["value"]


def runs(api: Web, dag_id: str) -> dict[str, dict[str, Any]]:
    found = api.json("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100&order_by=-run_after")["dag_runs"]
    return {run["dag_run_id"]: run for run in found}


def refusal(web: Web, dag_id: str, conf: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as refused:
        web.send("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"conf": conf, "logical_date": None})
    assert refused.value.code in (400, 422)
    [answer] = refused.value.__notes__
    return str(json.loads(answer)["detail"])


def test_rest_ui_and_both_command_lines_start_a_run_with_its_conf(api: Web, browser: Web) -> None:
    api.json("PATCH", "/api/v2/dags/build_model", {"is_paused": True})
    path, body = "/api/v2/dags/build_model/dagRuns", {"conf": GOOD, "logical_date": None}
    started = [api.json("POST", path, body)["dag_run_id"], browser.json("POST", path, body)["dag_run_id"]]
    command = [
        "airflow",
        "dags",
        "trigger",
        "build_model",
        "--run-id",
        "by-airflow",
        "--conf",
        json.dumps(GOOD),
    ]
    ran = updraft("exec", "scheduler", "--", *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    started += ["by-airflow"]
    found = runs(api, "build_model")
    assert [found[run_id]["conf"] for run_id in started] == [GOOD] * 3
    for run_id in started:
        api.json("PATCH", f"{path}/{run_id}", {"state": "failed"})
        api.json("DELETE", f"{path}/{run_id}")
    api.json("PATCH", "/api/v2/dags/build_model", {"is_paused": False})


def test_bad_confs_are_refused_with_the_reason_before_there_is_a_run(api: Web, browser: Web) -> None:
    before = runs(api, "build_model"), runs(api, "grid_search")
    for web in (api, browser):
        for conf, said in BAD:
            assert said in refusal(web, "build_model", conf), conf
    for conf, said in BAD_GRIDS:
        assert said in refusal(api, "grid_search", conf), conf
    for conf, said in (BAD[0], BAD[3]):
        ran = updraft("run", "build_model", "--conf", json.dumps(conf), "--json")
        assert (ran.returncode, said.partition(";")[0] in json.loads(ran.stdout)["error"]) == (1, True)
    command = ["airflow", "dags", "trigger", "build_model", "--conf", json.dumps(BAD[0][0])]
    ran = updraft("exec", "scheduler", "--", *command)
    assert ran.returncode != 0
    assert BAD[0][1] in ran.stdout + ran.stderr
    assert (runs(api, "build_model"), runs(api, "grid_search")) == before


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs a Java runtime on this machine")
def test_spark_searches_the_same_grid_and_leaves_its_event_log(api: Web, mlflow: Mlflow) -> None:
    grid = {"max_depth": [4, 6], "n_estimators": [10]}
    ran = run_to_its_end("grid_search_spark", {"grid": grid})
    assert ran["state"] == "success"
    parent = mlflow.run_of(ran["run_id"], "open_search")
    trials = mlflow.runs(f"tags.`mlflow.parentRunId` = '{parent['id']}'")
    assert parent["status"] == "FINISHED"
    assert sorted(trial["params"]["max_depth"] for trial in trials) == ["4", "6"]
    built = xcom(api, "grid_search_spark", ran["run_id"], "register")
    assert built["value"] > built["baseline"] + 0.02
    assert mlflow.version(f"{MODEL}-spark", built["mlflow_version"])["run_id"] == parent["id"]
    bucket, _, model = built["uri"].removeprefix("s3://").partition("/")
    keys = [
        item["Key"]
        for item in client("s3").list_objects_v2(Bucket=bucket, Prefix=model.removesuffix("model"))[
            "Contents"
        ]
    ]
    assert any(key.startswith(f"{model}/stages/2_RandomForestClassifier") for key in keys)
    [log] = [key for key in keys if "/events/" in key]
    body = client("s3").get_object(Bucket=bucket, Key=log)["Body"].read().decode()
    events = [json.loads(line) for line in body.splitlines()]
    [started] = [event for event in events if event["Event"] == "SparkListenerApplicationStart"]
    assert started["App ID"] == parent["tags"]["spark.application_id"]
    assert started["App Name"] == "flights grid search"
    ended = [event["Job Result"]["Result"] for event in events if event["Event"] == "SparkListenerJobEnd"]
    assert len(ended) > 10
    assert set(ended) == {"JobSucceeded"}


def test_model_is_built_with_what_was_asked_for_and_registered_in_both_registries(
    api: Web, mlflow: Mlflow
) -> None:
    ran = run_to_its_end("build_model", GOOD)
    assert ran["state"] == "success"
    built = xcom(api, "build_model", ran["run_id"], "register")
    assert built["value"] > built["baseline"] + 0.02
    record = mlflow.run_of(ran["run_id"], "record")
    assert (record["status"], record["params"]) == ("FINISHED", {"max_depth": "3", "n_estimators": "20"})
    assert record["metrics"]["test_auc"] == pytest.approx(built["value"])
    job = client("sagemaker").describe_training_job(TrainingJobName=record["tags"]["sagemaker_job"])
    assert job["HyperParameters"]["max_depth"] == "3"
    assert job["HyperParameters"]["rounds"] == "20"
    version = mlflow.version(MODEL, built["mlflow_version"])
    assert (version["run_id"], version["source"]) == (record["id"], built["uri"])
    package = client("sagemaker").describe_model_package(ModelPackageName=built["model_package_arn"])
    assert package["ModelApprovalStatus"] == "Approved"
    [container] = package["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == job["ModelArtifacts"]["S3ModelArtifacts"] == built["uri"]


def test_grid_is_one_run_with_a_child_for_each_trial_and_the_best_is_registered(
    api: Web, mlflow: Mlflow
) -> None:
    ran = run_to_its_end("grid_search", {"grid": GRID})
    assert ran["state"] == "success"
    parent = mlflow.run_of(ran["run_id"], "open_search")
    trials = mlflow.runs(f"tags.`mlflow.parentRunId` = '{parent['id']}'")
    assert parent["status"] == "FINISHED"
    assert {trial["status"] for trial in trials} == {"FINISHED"}
    tried = {(int(trial["params"]["max_depth"]), int(trial["params"]["n_estimators"])) for trial in trials}
    assert tried == {(depth, count) for depth in GRID["max_depth"] for count in GRID["n_estimators"]}
    best = max(trials, key=lambda trial: trial["metrics"]["validation_auc"])
    built = xcom(api, "grid_search", ran["run_id"], "register")
    assert built["mlflow_run_id"] == best["id"]
    assert parent["tags"]["best.max_depth"] == best["params"]["max_depth"]
    assert parent["metrics"]["test_auc"] == pytest.approx(built["value"])
    assert built["value"] > built["baseline"] + 0.02
    assert mlflow.version(MODEL, built["mlflow_version"])["source"] == best["tags"]["model_uri"]


def test_search_whose_best_is_no_better_than_the_baseline_registers_nothing_and_is_closed(
    api: Web, mlflow: Mlflow
) -> None:
    ran = run_to_its_end("grid_search", {"grid": {"max_depth": [1], "n_estimators": [1]}})
    tasks = api.json("GET", f"/api/v2/dags/grid_search/dagRuns/{ran['run_id']}/taskInstances")
    states = {task["task_id"]: task["state"] for task in tasks["task_instances"]}
    assert (states["gate"], states["register"], states["close_search"]) == (
        "failed", "upstream_failed", "success",
    )  # fmt: skip
    assert mlflow.run_of(ran["run_id"], "open_search")["status"] == "FAILED"
