"""The command line: one document with --json, one clear line for a mistake, never a traceback."""

import errno
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
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    UnauthorizedSSOTokenError,
)
from typer.core import TyperGroup

from ops import __main__ as command_line
from ops import console, prices
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


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "not taken"}}, "DescribeStacks")


def failed_upload(code: str) -> S3UploadFailedError:
    """As boto3 raises it."""
    try:
        try:
            raise refusal(code)
        except ClientError as error:
            raise S3UploadFailedError(f"Failed to upload x.zip: {error}")  # noqa: B904
    except S3UploadFailedError as error:
        return error


def main_of(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """What a command that raises this tells, with --json: its document's error and its lines on standard error."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", fail)
    monkeypatch.setattr(console, "_shown", [])
    monkeypatch.setattr(sys, "argv", ["updraft", "releases", "--json"])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    assert left.value.code == 1
    told = capsys.readouterr()
    return json.loads(told.out)["error"], told.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal("AccessDenied"), "(AccessDenied) when calling the DescribeStacks operation"),
        (EndpointConnectionError(endpoint_url="https://x"), "Could not connect to the endpoint URL"),
        (ReadTimeoutError(endpoint_url="https://x"), "Read timeout on endpoint URL"),
        (failed_upload("AccessDenied"), "Failed to upload x.zip"),
    ],
)
def test_error_of_aws_is_one_line_and_one_document(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document, line = main_of(error, monkeypatch, capsys)
    assert said in document
    assert line == f"updraft: {document}\n"
    assert "aws sso login" not in line


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        ProfileNotFound(profile="x"),
        UnauthorizedSSOTokenError(),
        refusal("ExpiredTokenException"),
        refusal("InvalidClientTokenId"),
        failed_upload("ExpiredToken"),
    ],
)
def test_credentials_that_are_not_taken_say_what_to_do(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document, line = main_of(error, monkeypatch, capsys)
    assert str(error).rstrip(".") in document
    assert "aws sso login" in document
    assert line.count("\n") == 1


def test_full_disk_is_told_with_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/full/x")
    assert main_of(full, monkeypatch, capsys)[1] == "updraft: No space left on device: /full/x\n"


def test_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command_line, "app", fail)
    with pytest.raises(ZeroDivisionError):
        command_line.main()


@pytest.mark.parametrize(("ends", "said"), [(KeyboardInterrupt(), "goes on where"), (typer.Exit(130), "")])
def test_interrupted_command_says_that_it_goes_on(
    ends: BaseException, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = typer.Typer()

    @interrupted.command()
    def wait() -> None:
        raise ends

    monkeypatch.setattr(command_line, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["updraft"])
    with pytest.raises(SystemExit) as left:
        command_line.main()
    assert left.value.code == 130
    told = capsys.readouterr().err
    assert said in told
    assert bool(told) is bool(said)


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
