"""One database server without an account, for tests and benchmarks: PostgreSQL behind its TLS front."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from local.certificates import ensure_ca
from local.database.plane import DatabasePlane, InstanceSpec
from local.database.server import Master
from local.database.verifier import Check
from local.paths import LocalPaths
from local.ports import free_port

INSTANCE_CLASS = "db.t4g.micro"


@dataclass(frozen=True)
class Endpoint:
    """Where the server is, whose certificate it has, and who made it."""

    port: int
    authority: Path
    master: Master

    def connect(self, **more: Any) -> Any:
        """A connection of the master that commits each statement; `more` replaces what it says."""
        asked = {
            "host": "127.0.0.1",
            "port": self.port,
            "dbname": self.master.database,
            "user": self.master.user,
            "password": self.master.password,
            "sslmode": "verify-full",
            "sslrootcert": str(self.authority),
            "connect_timeout": 10,
        }
        connection = psycopg2.connect(**(asked | more))
        connection.autocommit = True
        return connection


@contextmanager
def serving(
    folder: Path, master: Master, *, check_token: Check = lambda _user, _token: False
) -> Iterator[Endpoint]:
    """A server with its state in a folder; `check_token(user, token)` as for an instance of the account."""
    paths = LocalPaths(folder)
    # Somewhere else than the account's: servers of several runs start at the same time.
    plane = DatabasePlane(
        paths=paths, logger=logging.getLogger("database"), instances=tuple, first_port=free_port()
    )
    spec = InstanceSpec(
        identifier="one", instance_class=INSTANCE_CLASS, master=master, check_token=check_token
    )
    port = plane.start_instance(spec)
    try:
        yield Endpoint(port=port, authority=ensure_ca(paths), master=master)
    finally:
        plane.stop()
