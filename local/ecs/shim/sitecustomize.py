"""Gives a Python process the network of its task: an address of its own, and the names of Cloud Map.

It comes first on the process's path. `localhost` and wildcard addresses mean the task's address, as they do inside
a task's own network namespace; 127.0.0.1 stays what it is, for that is where the VPC's other endpoints are.
"""

# mypy: ignore-errors
import json
import os
import socket
import sys
from pathlib import Path

_address = os.environ.get("UPDRAFT_TASK_ADDRESS")
_names_file = os.environ.get("UPDRAFT_TASK_NAMES", "")

if _address:
    # uvloop binds in C, past everything below; uvicorn falls back to asyncio without it.
    sys.modules["uvloop"] = None
    _getaddrinfo = socket.getaddrinfo
    _bind = socket.socket.bind
    _hostname = "ip-" + _address.replace(".", "-")
    _known = (0, {})

    def _lookup(host):
        global _known
        if host in ("localhost", _hostname):
            return [_address]
        if not host.endswith(".internal"):
            return None
        try:
            changed = Path(_names_file).stat().st_mtime_ns
            if changed != _known[0]:
                _known = (changed, json.loads(Path(_names_file).read_text()))
        except (OSError, ValueError):
            pass
        found = _known[1].get(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"no healthy task is registered as {host}")
        return found

    def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        name = host.decode() if isinstance(host, bytes) else host
        if name is None and flags & socket.AI_PASSIVE:
            name = _address
        found = _lookup(name) if isinstance(name, str) else None
        if found is None:
            return _getaddrinfo(name, port, family, type, proto, flags)
        return [answer for address in found for answer in _getaddrinfo(address, port, 0, type, proto, 0)]

    def bind(self, address):
        if self.family == socket.AF_INET and address[0] in ("", "0.0.0.0"):
            address = (_address, *address[1:])
        elif self.family == socket.AF_INET6 and address[0] in ("", "::"):
            raise OSError("a task has no IPv6 address")
        return _bind(self, address)

    socket.getaddrinfo = getaddrinfo
    socket.socket.bind = bind
    socket.gethostname = lambda: _hostname
    socket.getfqdn = lambda name="": name or _hostname
    socket.gethostbyname = lambda name: (
        _lookup(name) or [_getaddrinfo(name, None, socket.AF_INET)[0][4][0]]
    )[0]
