"""A real PostgreSQL behind its TLS front, for tests."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2

from local import tls_front
from local.certificates import ensure_ca, ensure_server_certificate
from local.database import roles
from local.database.server import Master, PostgresServer, memory_bytes
from local.database.verifier import TokenVerifier

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = 'it\'s "odd" but 1 password'


class Endpoint:
    """Where the server is, and how its master user connects."""

    def __init__(self, *, port: int, ca: Path) -> None:
        self.port = port
        self.ca = ca

    def connect(self, **more: Any) -> Any:
        asked = {
            "host": "127.0.0.1",
            "port": self.port,
            "dbname": "airflow",
            "user": "updraft",
            "password": PASSWORD,
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca),
            "connect_timeout": 10,
        }
        connection = psycopg2.connect(**(asked | more))
        connection.autocommit = True
        return connection


@contextmanager
def serving(folder: Path) -> Iterator[Endpoint]:
    """A server in a folder, with the master user `updraft`, the database `airflow` and the role `load_metric`."""
    paths = SimpleNamespace(certificates=folder / "certificates")
    certificate = ensure_server_certificate(paths)
    sockets = tls_front.socket_folder(folder)
    server = PostgresServer(folder=folder / "one", sockets=sockets)
    server.initialize(master_user="updraft")
    server.prepare_start()
    verifier = TokenVerifier(
        path=sockets / "tokens", check=lambda user, token: (user, token) == ("load_metric", "good")
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    front = [sys.executable, "-m", "local.database.front", "--port", str(port)]
    front += ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    front += ["--server-socket", str(server.socket), "--verifier-socket", str(sockets / "tokens")]
    processes = [
        subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for argv in (server.command(memory_bytes=memory_bytes("db.t4g.micro")), front)
    ]
    try:
        roles.wait_until_ready(server, timeout_seconds=20)
        roles.ensure_master(server, Master(user="updraft", password=PASSWORD, database="airflow"))
        _wait_for(port)
        made = Endpoint(port=port, ca=ensure_ca(paths))
        with made.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE load_metric LOGIN; GRANT rds_iam TO load_metric")
        connection.close()
        yield made
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=15)
        verifier.close()
        for left in sockets.iterdir():
            left.unlink()
        sockets.rmdir()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
