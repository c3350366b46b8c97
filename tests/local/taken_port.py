"""A port that another program has taken since a server had it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.embedded import remove_sockets


@contextmanager
def taken_port(folder: Path) -> Iterator[int]:
    """The port that the server of this folder keeps, which somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        (folder / "port").write_text(str(port))
        yield port
    remove_sockets(folder)
