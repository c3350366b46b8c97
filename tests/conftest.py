"""Shared by every test: no test leaves the loopback, and Ctrl-C means the same however the tests were started."""

import ipaddress
import signal
import socket
from typing import Any

import pytest

# Minutes each, with heavy environments: only `./updraft test --pipelines` and a path that is given collect them.
collect_ignore = ["pipelines"]

# A run in the background is started with SIGINT ignored, and so would be every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
