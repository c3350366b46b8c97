"""A real PostgreSQL on a Unix socket: database `warehouse`, user `owner`, password `secret`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local import tls_front
from local.database import roles
from local.database.server import Master, PostgresServer, memory_bytes

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def postgres(folder: Path) -> Iterator[PostgresServer]:
    sockets = tls_front.socket_folder(folder)
    server = PostgresServer(folder=folder / "one", sockets=sockets)
    server.initialize(master_user="owner")
    server.prepare_start()
    process = subprocess.Popen(
        server.command(memory_bytes=memory_bytes("db.t4g.micro")),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        roles.wait_until_ready(server, timeout_seconds=20)
        roles.ensure_master(server, Master(user="owner", password="secret", database="warehouse"))
        yield server
    finally:
        process.terminate()
        process.wait(timeout=15)
