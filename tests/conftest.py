"""Shared by every test: no test leaves the loopback."""

import ipaddress
import socket
from typing import Any

import pytest

# Minutes each, with heavy environments: only `./updraft test --pipelines` and a path that is given collect them.
collect_ignore = ["pipelines"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"a test tried to reach {host}: tests stay on the loopback")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
