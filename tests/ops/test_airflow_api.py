"""The command line's client of Airflow: a lost answer is asked for again, a change never sent twice."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops.airflow_api import AirflowApi
from ops.console import OperatorError


class Webserver(ThreadingHTTPServer):
    """Fails the first answers to each method, by status or by hanging up."""

    failures: dict[str, list[int]]
    seen: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Webserver

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(f"{self.command} {self.path.partition('?')[0]}")
        failures = self.server.failures.get(self.command, [])
        status = failures.pop(0) if failures and self.path != "/auth/token" else 200
        if status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps({"access_token": "t", "dags": [{"dag_id": "one"}], "dag_run_id": "r"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def webserver() -> Iterator[Webserver]:
    server = Webserver(("127.0.0.1", 0), Handler)
    server.failures, server.seen = {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _client(server: Webserver) -> AirflowApi:
    return AirflowApi(f"http://127.0.0.1:{server.server_port}", username="admin", password="p")


@pytest.mark.parametrize("failure", [0, 502, 503, 504])
def test_question_without_an_answer_is_asked_again(webserver: Webserver, failure: int) -> None:
    client = _client(webserver)
    webserver.failures["GET"] = [failure]
    assert client.dags() == [{"dag_id": "one"}]
    assert webserver.seen.count("GET /api/v2/dags") == 2


def test_error_that_stays_is_told(webserver: Webserver) -> None:
    client = _client(webserver)
    webserver.failures["GET"] = [503] * 9
    with pytest.raises(OperatorError, match="503"):
        client.dags()


@pytest.mark.parametrize("failure", [0, 503])
def test_change_is_never_sent_twice(webserver: Webserver, failure: int) -> None:
    client = _client(webserver)
    webserver.failures["POST"] = [failure]
    with pytest.raises(OperatorError):
        client.trigger("one", {})
    assert webserver.seen.count("POST /api/v2/dags/one/dagRuns") == 1


def test_nobody_there_is_told_at_once() -> None:
    with pytest.raises(OperatorError, match="is the platform up"):
        AirflowApi("http://127.0.0.1:9", username="admin", password="p")
