"""The tracking server, over the address and with the log-in that users have."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests

from tests.end_to_end.platform import client

pytestmark = pytest.mark.platform
API = "/api/2.0/mlflow"


class Mlflow:
    def __init__(self, url: str, login: dict[str, str]) -> None:
        self._url, self._login = url, (login["username"], login["password"])

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = requests.request(method, self._url + path, auth=self._login, timeout=30, **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None


@pytest.fixture
def mlflow(demo: dict[str, Any]) -> Mlflow:
    return Mlflow(demo["urls"]["mlflow"], demo["credentials"]["mlflow"])


def test_a_logged_run_comes_back_and_its_artifact_lies_in_s3(mlflow: Mlflow, demo: dict[str, Any]) -> None:
    name = uuid.uuid4().hex
    experiment_id = mlflow.call("POST", f"{API}/experiments/create", json={"name": name})["experiment_id"]
    run = mlflow.call("POST", f"{API}/runs/create", json={"experiment_id": experiment_id})["run"]
    run_id = run["info"]["run_id"]
    metric = {"run_id": run_id, "key": "auc", "value": demo["model"]["value"], "timestamp": 1, "step": 0}
    mlflow.call("POST", f"{API}/runs/log-metric", json=metric)
    back = mlflow.call("GET", f"{API}/runs/get", params={"run_id": run_id})["run"]
    assert back["data"]["metrics"][0]["value"] == pytest.approx(demo["model"]["value"])

    place = f"{experiment_id}/{run_id}/artifacts/note.txt"
    mlflow.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}", data=b"kept in S3")
    bucket = demo["model"]["uri"].removeprefix("s3://").partition("/")[0]
    assert client("s3").get_object(Bucket=bucket, Key=f"mlflow/{place}")["Body"].read() == b"kept in S3"


def test_nobody_gets_in_without_a_log_in_or_under_a_foreign_name(demo: dict[str, Any]) -> None:
    url = demo["urls"]["mlflow"] + f"{API}/experiments/search"
    assert requests.post(url, json={"max_results": 1}, timeout=30).status_code == 401
    rebound = requests.post(url, json={"max_results": 1}, headers={"Host": "evil.example"}, timeout=30)
    assert rebound.status_code == 403
