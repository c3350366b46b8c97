"""Commands on the laptop reach this checkout's account, whoever else answers and whatever proxy is set."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.paths import LocalPaths
from local.ports import free_port
from ops import cdk, target
from ops.console import OperatorError
from ops.own_account import ready
from ops.target import Target
from stacks.config import EMULATED_ACCOUNT, load_environment

IDENTITY = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Account>000000000000</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


def on_the_laptop() -> Target:
    """An environment of the emulated account; the real one needs the authority of a platform."""
    return Target(load_environment("dev").model_copy(update={"account": EMULATED_ACCOUNT}))


class Answers(http.server.BaseHTTPRequestHandler):
    """Stands for an account: says whose it is, and who asks."""

    def do_GET(self) -> None:
        self._answer(self.server.status, self.server.document)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, IDENTITY)

    def _answer(self, status: int, body: str) -> None:
        self.server.asked.append(self.command)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


class Account(http.server.ThreadingHTTPServer):
    """Listens on a free port; `asked` has each request's method."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status, self.document = 200, ""
        self.asked: list[str] = []

    def says(self, status: int = 200, **document: Any) -> None:
        self.status, self.document = status, json.dumps(document)


@pytest.fixture
def account() -> Iterator[Account]:
    with Account() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def paths(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalPaths:
    paths = LocalPaths(tmp_path / "local", port=account.server_port)
    monkeypatch.setattr(target, "local_paths", lambda: paths)
    monkeypatch.setattr(cdk, "local_paths", lambda: paths)
    return paths


def test_own_account_is_asked_once_for_all_clients(account: Account, paths: LocalPaths) -> None:
    account.says(state_directory=str(paths.root))
    local = on_the_laptop()
    local.client("sts")
    local.client("s3")
    assert account.asked == ["GET"]


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.usefixtures("paths")
def test_another_checkouts_account_is_left_alone(account: Account, status: int) -> None:
    account.says(status, state_directory="/elsewhere/.updraft/local")
    with pytest.raises(OperatorError, match=r"is in use by /elsewhere/\.updraft/local; end it"):
        on_the_laptop().client("sts")


@pytest.mark.usefixtures("paths")
def test_another_checkouts_stacks_are_not_destroyed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdk, "ensure_node", lambda: Path("/no/cdk"))
    account.says(state_directory="/elsewhere/.updraft/local")
    with pytest.raises(OperatorError, match="in use by /elsewhere"):
        cdk.destroy(on_the_laptop())


def test_another_program_is_told_from_an_account_that_starts(account: Account, paths: LocalPaths) -> None:
    account.says(503, state_directory=str(paths.root))
    assert ready(paths) is None
    account.says(404, detail="Not Found")
    assert ready(paths) is None
    account.says(200, detail="Welcome")
    with pytest.raises(OperatorError, match="in use by another program"):
        ready(paths)


def test_nobody_there_is_left_to_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = LocalPaths(tmp_path, port=free_port())
    monkeypatch.setattr(target, "local_paths", lambda: nobody)
    assert on_the_laptop().client("sts").meta.endpoint_url == nobody.endpoint_url


def test_no_proxy_stands_before_the_account(
    account: Account, paths: LocalPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    account.says(state_directory=str(paths.root))
    identity = on_the_laptop().client("sts").get_caller_identity()
    assert identity["Account"] == paths.account_id
