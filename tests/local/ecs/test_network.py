"""Where the UIs are published, on systems with many loopback addresses and on macOS with one."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from local.account import __main__ as account
from local.ecs.network import Addresses, Tunnel
from local.paths import LocalPaths


@pytest.mark.parametrize(
    ("platform", "address", "listens"),
    [
        ("linux", "127.77.0.3", [8080, 5556, 5000]),
        # The tasks themselves are there; only what is published elsewhere needs a forwarder.
        ("darwin", "127.0.0.1", [5556]),
    ],
)
def test_tunnel_leaves_a_task_its_own_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, address: str, listens: list[int]
) -> None:
    ports: list[int] = []

    async def listen(_forward: object, _host: str, port: int) -> Any:
        ports.append(port)

    monkeypatch.setattr(asyncio, "start_server", listen)
    monkeypatch.setattr(sys, "platform", platform)
    assert Addresses().take("task") == address
    tunnel = Tunnel(LocalPaths(tmp_path, flower_port=5556), dict)
    tunnel.start()
    tunnel.stop()
    tunnel._loop.close()
    assert ports == listens


@pytest.mark.parametrize(("platform", "told"), [("linux", False), ("darwin", True)])
def test_taken_port_of_mlflow_is_often_airplays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform: str,
    told: bool,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "argv", ["account", "--state-directory", str(tmp_path)])
    monkeypatch.setattr(account, "is_free", lambda port: port != 5000)
    assert account.main() == 1
    said = capsys.readouterr().err
    assert "port 5000 on 127.0.0.1 is in use" in said
    assert ("AirPlay Receiver" in said) is told
