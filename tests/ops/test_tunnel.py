"""The tunnel with a plugin that is called, and dies, as AWS's own does."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.ports import free_port
from ops import sessions, tunnel
from ops.console import OperatorError
from stacks.sections import Tracking

# Writes down how it was called, then forwards: it listens until it is ended. With a file `broken` it ends at once.
PLUGIN = """\
#!{python}
import json, os, socket, sys, time
from pathlib import Path
here = Path(__file__).parent
if sys.argv[1:] == ["--version"]:
    print((here / "version").read_text())
    sys.exit()
response = os.environ.get(sys.argv[1], sys.argv[1])
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({{"pid": os.getpid(), "argv": sys.argv[1:], "response": json.loads(response)}}) + "\\n")
if (here / "broken").exists():
    sys.exit("plugin: broken")
request = json.loads(sys.argv[5])
with socket.create_server(("127.0.0.1", int(request["Parameters"]["localPortNumber"][0]))) as server:
    while True:
        server.accept()[0].close()
"""
LIMIT_SECONDS = 20
BASTION = {"InstanceId": "i-0123456789abcdef0", "LaunchTime": "2026-01-02T00:00:00Z"}


class Plugin:
    """The stand-in's folder: its version, whether it is broken, and how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / sessions.PLUGIN
        program.write_text(PLUGIN.format(python=sys.executable))
        program.chmod(0o755)
        self.set_version("1.2.707.0")

    def set_version(self, version: str) -> None:
        (self.folder / "version").write_text(version)

    def calls(self) -> list[dict[str, Any]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return Plugin(tmp_path)


def account(**changes: Any) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    started = iter(range(1, 100))
    return {
        "DescribeInstances": lambda _: {"Reservations": [{"Instances": [BASTION]}]},
        "StartSession": lambda _: {
            "SessionId": f"s-{next(started)}", "TokenValue": "token", "StreamUrl": "wss://stream",
        },
        "TerminateSession": lambda request: {"SessionId": request["SessionId"]},
    } | changes  # fmt: skip


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def closing() -> Iterator[list[tunnel.Tunnel]]:
    opened: list[tunnel.Tunnel] = []
    yield opened
    for each in opened:
        each.close()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def test_session_goes_through_the_bastion_to_the_service(
    plugin: Plugin, target: Any, port: int, closing: list[tunnel.Tunnel]
) -> None:
    to = target(account())
    wanted = tunnel.forwards(to, ["webserver"], [port])
    closing += tunnel.open_all(to, wanted)
    assert tunnel.is_listening(port)
    [request] = to.requests("StartSession")
    assert request == {
        "Target": BASTION["InstanceId"],
        "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
        "Parameters": {
            "host": ["webserver.updraft-dev.internal"],
            "portNumber": ["8080"],
            "localPortNumber": [str(port)],
        },
    }
    [call] = plugin.calls()
    variable, region, action, profile, repeated, endpoint = call["argv"]
    assert (region, action, profile) == ("us-east-1", "StartSession", "")
    assert json.loads(repeated) == request
    assert endpoint == "https://ssm.us-east-1.amazonaws.com"
    # The token opens the session: it must not be among the arguments, which every user can list.
    assert variable == sessions.VARIABLE
    assert call["response"] == {"SessionId": "s-1", "TokenValue": "token", "StreamUrl": "wss://stream"}


@pytest.mark.parametrize("version", ["1.2.497.0", "1.1.0", "unknown"])
def test_older_plugin_gets_the_session_as_its_argument(
    plugin: Plugin, target: Any, port: int, closing: list[tunnel.Tunnel], version: str
) -> None:
    plugin.set_version(version)
    to = target(account())
    closing += tunnel.open_all(to, tunnel.forwards(to, ["flower"], [port]))
    assert json.loads(plugin.calls()[0]["argv"][0])["SessionId"] == "s-1"


def test_dropped_session_is_opened_again_and_closing_ends_it(
    plugin: Plugin, target: Any, port: int, closing: list[tunnel.Tunnel]
) -> None:
    to = target(account())
    [opened] = tunnel.open_all(to, tunnel.forwards(to, ["webserver"], [port]))
    closing.append(opened)
    keeper = threading.Thread(target=opened.keep, args=[lambda _: None])
    keeper.start()
    os.kill(until(plugin.calls)[0]["pid"], signal.SIGKILL)
    until(lambda: len(plugin.calls()) == 2 and tunnel.is_listening(port))
    opened.close()
    keeper.join(LIMIT_SECONDS)
    assert not keeper.is_alive()
    assert not tunnel.is_listening(port)
    assert to.requests("TerminateSession")[-1] == {"SessionId": "s-2"}
    assert len(plugin.calls()) == 2


@pytest.mark.usefixtures("plugin")
def test_several_tunnels_end_together_when_one_can_not_be_opened(target: Any, port: int) -> None:
    def second_is_refused(request: dict[str, Any]) -> dict[str, Any]:
        if request["Parameters"]["portNumber"] == ["8080"]:
            return account()["StartSession"](request)
        return {"Error": {"Code": "TargetNotConnected", "Message": "i-0123456789abcdef0 is not connected."}}

    to = target(account(StartSession=second_is_refused))
    with pytest.raises(OperatorError, match="its SSM agent is not connected"):
        tunnel.open_all(to, tunnel.forwards(to, ["webserver", "flower"], [port, free_port()]))
    assert not tunnel.is_listening(port)
    assert len(to.requests("TerminateSession")) == 1


@pytest.mark.usefixtures("plugin")
def test_ctrl_c_ends_every_session(target: Any, port: int) -> None:
    to = target(account())
    opened = tunnel.open_all(to, tunnel.forwards(to, ["webserver", "flower"], [port, free_port()]))
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    tunnel.keep_all(opened)
    assert not any(tunnel.is_listening(each.forward.local_port) for each in opened)
    assert len(to.requests("TerminateSession")) == len(to.requests("StartSession")) == 2


def test_failed_reconnection_is_tried_again(
    plugin: Plugin, target: Any, port: int, closing: list[tunnel.Tunnel]
) -> None:
    to = target(account())
    [opened] = tunnel.open_all(to, tunnel.forwards(to, ["webserver"], [port]))
    closing.append(opened)
    (plugin.folder / "broken").touch()
    said: list[str] = []
    keeper = threading.Thread(target=opened.keep, args=[said.append])
    keeper.start()
    os.kill(until(plugin.calls)[0]["pid"], signal.SIGKILL)
    until(lambda: any("ended with 1" in line for line in said))
    (plugin.folder / "broken").unlink()
    until(lambda: any(line.endswith(" again") and "http" in line for line in said))
    opened.close()
    keeper.join(LIMIT_SECONDS)
    assert not keeper.is_alive()


def test_plugin_that_ends_at_once_is_an_error(plugin: Plugin, target: Any, port: int) -> None:
    (plugin.folder / "broken").touch()
    to = target(account())
    with pytest.raises(OperatorError, match="webserver: the session ended with 1"):
        tunnel.open_all(to, tunnel.forwards(to, ["webserver"], [port]))
    assert to.requests("TerminateSession") == [{"SessionId": "s-1"}]


@pytest.mark.usefixtures("plugin")
def test_port_in_use_is_told_before_a_session_is_started(target: Any) -> None:
    to = target(account())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OperatorError, match=rf"port {port} \(webserver\); choose another"):
            tunnel.open_all(to, tunnel.forwards(to, ["webserver"], [port]))
    assert to.requests("StartSession") == []


def test_missing_plugin_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    to = target(account())
    with pytest.raises(
        OperatorError, match=r"session-manager-plugin is not installed.*docs\.aws\.amazon\.com"
    ):
        tunnel.open_all(to, tunnel.forwards(to, ["webserver"], []))
    assert to.requests("StartSession") == []


def test_stopped_bastion_is_told(target: Any) -> None:
    with pytest.raises(OperatorError, match="'dev' has no running bastion"):
        tunnel.find_bastion(target(account(DescribeInstances=lambda _: {"Reservations": []})))


def test_newest_instance_is_the_bastion(target: Any) -> None:
    older = {"InstanceId": "i-old", "LaunchTime": "2026-01-01T00:00:00Z"}
    answer = {"Reservations": [{"Instances": [older]}, {"Instances": [BASTION]}]}
    to = target(account(DescribeInstances=lambda _: answer))
    assert tunnel.find_bastion(to) == BASTION["InstanceId"]
    assert to.requests("DescribeInstances")[0]["Filters"][0] == {
        "Name": "tag:updraft:codedeploy",
        "Values": ["updraft-dev"],
    }


def test_every_mistake_is_told_at_once(target: Any) -> None:
    to = target(account(), tracking=Tracking(enabled=False))
    with pytest.raises(OperatorError) as refused:
        tunnel.forwards(to, ["web", "mlflow"], [0, 1, 2])
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["web", "mlflow", "--local-port", "--local-port"]


def test_defaults_are_each_services_own_port_and_the_database_is_reached_by_its_endpoint(target: Any) -> None:
    [web, flower, database] = tunnel.forwards(target(account()), ["webserver", "flower", "database"], [])
    assert (web.url, flower.url) == ("http://127.0.0.1:8080", "http://127.0.0.1:5555")
    assert (database.host, database.remote_port, database.local_port) == ("db.example.internal", 5432, 5432)
    assert "host=db.example.internal hostaddr=127.0.0.1 port=5432" in tunnel.how_to_reach(database)


def test_ssh_block_is_one_that_openssh_reads(target: Any, tmp_path: Path) -> None:
    to = target(account())
    block = tunnel.ssh_config(to, tunnel.forwards(to, ["webserver", "database"], [18080]))
    lines = [line.strip() for line in block.splitlines()]
    assert lines[0] == "Host updraft-dev-bastion"
    assert f"HostName {BASTION['InstanceId']}" in lines
    assert "LocalForward 18080 webserver.updraft-dev.internal:8080" in lines
    assert "LocalForward 5432 db.example.internal:5432" in lines
    [proxy] = [line for line in lines if line.startswith("ProxyCommand")]
    assert "--document-name AWS-StartSSHSession --parameters portNumber=%p" in proxy
    if shutil.which("ssh"):
        (tmp_path / "config").write_text(block)
        read = subprocess.run(
            ["ssh", "-G", "-F", tmp_path / "config", "updraft-dev-bastion"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"hostname {BASTION['InstanceId']}" in read.stdout
