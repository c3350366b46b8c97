"""Checks RDS log-in tokens for the database fronts, next to the account's credentials.

A front sends one line of JSON, {"user", "token"}, over a Unix socket in the instance's 0700 folder, and
gets {"valid": true} or {"valid": false}.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

MAXIMUM_LINE_BYTES = 70_000

Check = Callable[[str, str], bool]


class TokenVerifier:
    """A thread that answers on `path` with `check(user, token)`."""

    def __init__(self, *, path: Path, check: Check) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        self._server = socketserver.ThreadingUnixStreamServer(str(path), _handler(check))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="rds-tokens", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def _handler(check: Check) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            valid = False
            try:
                question = json.loads(self.rfile.readline(MAXIMUM_LINE_BYTES))
                valid = check(str(question["user"]), str(question["token"]))
            except (ValueError, KeyError, TypeError):
                pass
            self.wfile.write(json.dumps({"valid": valid}).encode() + b"\n")

    return Handler
