"""Ports on 127.0.0.1: one for now, one for as long as an endpoint exists, and one that must be free."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path

from local.state_file import write_whole


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stable_port(folder: Path, *, first: int) -> int:
    """Return the port of the endpoint whose state lies in `folder`, choosing a free one at the first call.

    It is kept in `folder/port`, because clients hold the endpoint's address for as long as it exists.
    """
    parent = folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (parent / ".ports").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / "port"
        if (kept := _kept_port(file)) is not None:
            return kept
        taken = {_kept_port(other) for other in parent.glob("*/port")}
        for port in range(first, first + 1000):
            if port not in taken and is_free(port):
                write_whole(file, port)
                return port
    raise RuntimeError(f"no free port between {first} and {first + 999} on 127.0.0.1")


def _kept_port(file: Path) -> int | None:
    """The port in a file; None where there is none, or a power cut left it without its content."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def check_port_is_free(port: int) -> None:
    """Raise RuntimeError when something listens on 127.0.0.1:`port`."""
    if not is_free(port):
        raise RuntimeError(
            f"port {port} on 127.0.0.1 is in use by another program; end it and run the same command again"
        )


def is_free(port: int) -> bool:
    """Whether nothing listens on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
