"""Runs are started by the clients that people have: REST with a token, Airflow's own clients, a browser, this CLI."""

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import bootstrap
from tests.end_to_end.platform import Web, client, updraft

pytestmark = pytest.mark.platform
DAG = "sagemaker_training"
CONF = {"rounds": 41, "sample": 5000}
LIMIT_SECONDS = 60
# Run in the clients' own environment: it can't share one with the command line's tools.
PYTHON_CLIENT = """
import json, os, sys
import airflow_client.client as airflow
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody
configuration = airflow.Configuration(host=os.environ["BASE_URL"], access_token=os.environ["TOKEN"])
with airflow.ApiClient(configuration) as api:
    runs = DagRunApi(api)
    body = TriggerDAGRunPostBody(conf=json.loads(sys.argv[2]), logical_date=None)
    started = runs.trigger_dag_run(sys.argv[1], body)
    again = runs.get_dag_run(sys.argv[1], started.dag_run_id)
    print(json.dumps({"run_id": again.dag_run_id, "conf": again.conf}))
"""


@pytest.fixture(scope="module")
def login(demo: dict[str, Any]) -> dict[str, str]:
    """`base_url`, `username`, `password` and a `token` of the administrator."""
    status = json.loads(updraft("status", "--credentials", "--json").stdout)
    login = {"base_url": demo["urls"]["webserver"], **status["credentials"]["webserver"]}
    body = {"username": login["username"], "password": login["password"]}
    return login | {"token": Web(login["base_url"]).json("POST", "/auth/token", body)["access_token"]}


@pytest.fixture(scope="module")
def api(login: dict[str, str]) -> Web:
    return Web(login["base_url"], {"Authorization": f"Bearer {login['token']}"})


@pytest.fixture(autouse=True)
def _paused(api: Web) -> Iterator[None]:
    """Runs wait in the queue, since these tests are about starting them, and are removed again."""
    before = {run["dag_run_id"] for run in runs(api)}
    api.json("PATCH", f"/api/v2/dags/{DAG}", {"is_paused": True})
    yield
    for run in runs(api):
        if run["dag_run_id"] not in before:
            api.json("PATCH", f"/api/v2/dags/{DAG}/dagRuns/{run['dag_run_id']}", {"state": "failed"})
            api.json("DELETE", f"/api/v2/dags/{DAG}/dagRuns/{run['dag_run_id']}")
    api.json("PATCH", f"/api/v2/dags/{DAG}", {"is_paused": False})


def runs(api: Web) -> list[dict[str, Any]]:
    answer = api.json("GET", f"/api/v2/dags/{DAG}/dagRuns?limit=100&order_by=-run_after")
    return list(answer["dag_runs"])


def conf_of(api: Web, run_id: str) -> dict[str, Any]:
    return dict(api.json("GET", f"/api/v2/dags/{DAG}/dagRuns/{urllib.parse.quote(run_id)}")["conf"])


def in_clients_environment(
    login: dict[str, str], tmp_path: Path, *command: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AIRFLOW_HOME": str(tmp_path),
            "BASE_URL": login["base_url"],
            "TOKEN": login["token"],
            "AIRFLOW_CLI_TOKEN": login["token"],
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * LIMIT_SECONDS,
    )


def test_rest_with_a_token_starts_a_run_with_its_conf(api: Web) -> None:
    started = api.json("POST", f"/api/v2/dags/{DAG}/dagRuns", {"conf": CONF, "logical_date": None})
    assert started["run_type"] == "manual"
    assert conf_of(api, started["dag_run_id"]) == CONF


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer forged"}])
def test_rest_without_a_good_token_starts_nothing(
    api: Web, login: dict[str, str], headers: dict[str, str]
) -> None:
    before = len(runs(api))
    with pytest.raises(urllib.error.HTTPError) as refused:
        Web(login["base_url"], headers).json(
            "POST", f"/api/v2/dags/{DAG}/dagRuns", {"conf": CONF, "logical_date": None}
        )
    assert refused.value.code in (401, 403)
    assert len(runs(api)) == before


def test_airflows_python_client_starts_a_run_with_its_conf(
    api: Web, login: dict[str, str], tmp_path: Path
) -> None:
    python = bootstrap.ensure_environment(bootstrap.CLIENTS)
    ran = in_clients_environment(login, tmp_path, python, "-c", PYTHON_CLIENT, DAG, json.dumps(CONF))
    assert ran.returncode == 0, ran.stderr[-2000:]
    started = json.loads(ran.stdout)
    assert started["conf"] == conf_of(api, started["run_id"]) == CONF


def test_airflowctl_starts_a_run(api: Web, login: dict[str, str], tmp_path: Path) -> None:
    program = bootstrap.ensure_environment(bootstrap.CLIENTS).with_name("airflowctl")
    logged_in = in_clients_environment(
        login, tmp_path, program, "auth", "login", "--api-url", login["base_url"], "--skip-keyring"
    )
    assert logged_in.returncode == 0, logged_in.stdout + logged_in.stderr
    # Without a conf: version 0.1.5 refuses every one.
    ran = in_clients_environment(
        login, tmp_path, program, "dags", "trigger", DAG, "--dag-run-id", "by-airflowctl", "-o", "json"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert conf_of(api, "by-airflowctl") == {}


def test_browser_logs_in_by_the_form_and_starts_a_run(api: Web, login: dict[str, str]) -> None:
    browser = Web(login["base_url"])
    page = browser.send("GET", "/auth/login/")
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert token is not None
    form = {"csrf_token": token[1], "username": login["username"], "password": login["password"]}
    browser.send("POST", "/auth/login/", form=form)
    # From here on the session's cookie speaks, as in a browser.
    assert browser.json("GET", "/ui/auth/me")["username"] == login["username"]
    assert DAG in [dag["dag_id"] for dag in browser.json("GET", "/ui/dags?limit=50")["dags"]]
    started = browser.json("POST", f"/api/v2/dags/{DAG}/dagRuns", {"conf": CONF, "logical_date": None})
    assert conf_of(api, started["dag_run_id"]) == CONF


def test_own_command_line_starts_a_run_with_its_conf(api: Web) -> None:
    ran = updraft("run", DAG, "--conf", json.dumps(CONF), "--json")
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert conf_of(api, json.loads(ran.stdout)["run_id"]) == CONF
    misspelt = updraft("run", DAG, "--conf", '{"round": 41}', "--json")
    assert misspelt.returncode == 1
    assert f"{DAG} has no round; it has " in json.loads(misspelt.stdout)["error"]


def test_logs_of_a_run_and_of_its_service_are_told(demo: dict[str, Any]) -> None:
    run_id = demo["dag_run"]["run_id"]
    by_run = json.loads(updraft("logs", run_id, "--lines", "10000", "--json").stdout)["lines"]
    tasks = {line.partition(" | ")[0] for line in by_run}
    assert {"extract", "train", "evaluate", "register"} <= tasks
    one = updraft("logs", "--run", f"{DAG}/{run_id}/evaluate", "--follow")
    assert one.returncode == 0, one.stderr
    assert {line.partition(" | ")[0] for line in one.stdout.splitlines()} == {"evaluate"}
    service = json.loads(updraft("logs", "scheduler", "--lines", "5", "--json").stdout)["lines"]
    assert len(service) == 5


@pytest.mark.usefixtures("demo")
def test_commands_run_in_the_containers_of_services_and_workers() -> None:
    ran = updraft("exec", "worker-default", "--", "sh", "-c", "echo $UPDRAFT_QUEUE; exit 7")
    assert (ran.returncode, ran.stdout) == (7, "default\n"), ran.stderr
    ran = updraft("exec", "scheduler", "--", "airflow", "config", "get-value", "database", "sql_alchemy_conn")
    assert ran.returncode == 0, ran.stderr[-2000:]
    # The entry point has put the connection together, as for the service itself; Airflow logs to standard output too.
    assert ran.stdout.strip().splitlines()[-1].startswith("postgresql+psycopg2://")


def test_tunnel_tells_the_addresses_that_answer(demo: dict[str, Any]) -> None:
    told = json.loads(updraft("tunnel", "webserver", "flower", "mlflow", "--json").stdout)["tunnels"]
    assert {item["service"]: item["url"] for item in told} == demo["urls"]


def test_pipelines_own_deployment_makes_the_same_version_live(demo: dict[str, Any], tmp_path: Path) -> None:
    """`bundle`, an upload and a plain `create-deployment`: docs/delivery-pipeline.md, without GitHub."""
    built = json.loads(updraft("bundle", "--output", str(tmp_path), "--json").stdout)
    assert built["version"] == demo["push"]["version"]
    outputs = {
        output["OutputKey"]: output["OutputValue"]
        for stack in client("cloudformation").describe_stacks()["Stacks"]
        for output in stack.get("Outputs", [])
    }
    key = f"{built['version']}.zip"
    client("s3").upload_file(built["archive"], outputs["BundlesBucket"], key)
    codedeploy = client("codedeploy")
    place = {"bucket": outputs["BundlesBucket"], "key": key, "bundleType": "zip"}
    deployment = codedeploy.create_deployment(
        applicationName=outputs["ApplicationName"],
        deploymentGroupName=outputs["DeploymentGroupName"],
        revision={"revisionType": "S3", "s3Location": place},
    )["deploymentId"]
    ended = until(lambda: _ended(codedeploy, deployment))
    assert ended["status"] == "Succeeded", ended
    pointer = client("ssm").get_parameter(Name=outputs["PointerParameter"])["Parameter"]["Value"]
    assert pointer == built["version"]


def _ended(codedeploy: Any, deployment: str) -> dict[str, Any] | None:
    info: dict[str, Any] = codedeploy.get_deployment(deploymentId=deployment)["deploymentInfo"]
    return info if info["status"] in ("Succeeded", "Failed", "Stopped") else None


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 2 * LIMIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found
