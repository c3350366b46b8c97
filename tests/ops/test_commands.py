"""The command line: one document with --json, one clear line for a mistake, never a traceback."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from ops import prices
from ops.__main__ import app
from ops.airflow_api import AirflowApi
from ops.console import OperatorError, table

ROOT = Path(__file__).resolve().parent.parent.parent


def ops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_mistake_is_one_document_and_one_line() -> None:
    ran = ops("synth", "--environment", "nowhere", "--json")
    assert ran.returncode == 1
    assert "no environment 'nowhere'" in json.loads(ran.stdout)["error"]
    assert ran.stderr.startswith("updraft: no environment 'nowhere'")
    assert "Traceback" not in ran.stderr


def test_unknown_command_is_refused() -> None:
    ran = ops("fly")
    assert ran.returncode == 2
    assert "No such command 'fly'" in ran.stderr


def test_every_command_has_a_line_of_help() -> None:
    ran = ops("--help")
    for command in (
        "up",
        "down",
        "status",
        "demo",
        "synth",
        "diff",
        "deploy",
        "destroy",
        "check",
        "bundle",
        "push",
        "rollback",
        "releases",
        "promote",
        "bench",
        "run",
        "tunnel",
        "exec",
        "logs",
        "doctor",
        "cost",
        "sleep",
        "wake",
        "test",
    ):
        assert f" {command} " in ran.stdout


def test_every_command_takes_json_but_the_one_whose_output_is_anothers() -> None:
    groups = [typer.main.get_group(app)]
    commands = {}
    while groups:
        for name, command in groups.pop().commands.items():
            if isinstance(command, TyperGroup):
                groups.append(command)
            else:
                commands[name] = [option for parameter in command.params for option in parameter.opts]
    assert [name for name, options in commands.items() if "--json" not in options] == ["exec"]


def test_table_aligns_and_leaves_missing_values_empty() -> None:
    rows: list[dict[str, Any]] = [{"service": "webserver", "healthy": 1}, {"service": "flower"}]
    assert table(rows, ["service", "healthy"]).splitlines() == [
        "service    healthy",
        "webserver  1",
        "flower",
    ]


def test_instance_without_a_price_says_where_to_add_it() -> None:
    assert prices.sagemaker_usd_per_hour("ml.p3.2xlarge") == 3.825
    with pytest.raises(OperatorError, match=r"no price for ml.x.large in prices.toml"):
        prices.sagemaker_usd_per_hour("ml.x.large")


class FakeAirflow(http.server.BaseHTTPRequestHandler):
    """Answers a log-in and refuses everything else, as Airflow words it."""

    def do_POST(self) -> None:
        self._answer(201, {"access_token": "t"})

    def do_GET(self) -> None:
        self._answer(404, {"detail": "The Dag with ID: `x` was not found"})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def airflow() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeAirflow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_airflows_own_words_reach_the_user(airflow: str) -> None:
    api = AirflowApi(airflow, username="admin", password="p")
    with pytest.raises(
        OperatorError, match=r"Airflow answered 404 to GET .*: The Dag with ID: `x` was not found"
    ):
        api.params("x")


def test_webserver_that_is_not_there_is_told_in_plain_words() -> None:
    with pytest.raises(OperatorError, match=r"no answer from the webserver at http://127.0.0.1:1"):
        AirflowApi("http://127.0.0.1:1", username="admin", password="p")
