"""One platform for all pipelines: this checkout's own, with the present DAGs live; stopped when it was not running."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local import processes
from ops.airflow_api import AirflowApi
from ops.target import target_of
from tests.end_to_end.platform import PATHS, updraft
from tests.pipelines.tracking_server import Mlflow


@pytest.fixture(scope="session")
def platform() -> Iterator[dict[str, Any]]:
    """What `./updraft status --credentials --json` tells (`urls`, `credentials`, `services`), and `push`."""
    was_running = processes.is_running(PATHS, "account")
    try:
        _run("up", "--pipelines")
        pushed = _run("push")
        yield _run("status", "--credentials") | {"push": pushed}
    finally:
        if not was_running:
            updraft("down")


@pytest.fixture(scope="session")
def airflow(platform: dict[str, Any]) -> AirflowApi:
    assert platform["push"]
    return target_of("local").airflow()


@pytest.fixture(scope="session")
def mlflow(platform: dict[str, Any]) -> Mlflow:
    return Mlflow(platform["urls"]["mlflow"], platform["credentials"]["mlflow"])


def _run(*arguments: str) -> dict[str, Any]:
    ran = updraft(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr[-3000:]
    result: dict[str, Any] = json.loads(ran.stdout)
    return result
