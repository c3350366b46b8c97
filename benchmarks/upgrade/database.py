"""A real PostgreSQL behind its TLS front, as the migration task finds one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from local import tls_front
from local.certificates import ensure_ca, ensure_server_certificate
from local.database import roles
from local.database.server import Master, PostgresServer, memory_bytes

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
USER, PASSWORD, NAME = "updraft", "secret", "airflow"
# Columns, indexes and constraints, in words that two equal schemas have in common.
SHAPE = """
SELECT 'column', table_name, column_name, data_type || coalesce('(' || character_maximum_length || ')', '') || ' '
    || is_nullable || ' ' || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
ORDER BY 1, 2, 3, 4
"""


@dataclass(frozen=True)
class Database:
    """Where the server is."""

    port: int
    authority: Path
    name: str = NAME

    def copy(self, name: str) -> Database:
        """The same content under another name."""
        Database(self.port, self.authority, "postgres").query(f"CREATE DATABASE {name} TEMPLATE {self.name}")
        return Database(self.port, self.authority, name)

    def connect(self) -> Any:
        """A connection that commits each statement."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=self.name,
            user=USER,
            password=PASSWORD,
            sslmode="verify-full",
            sslrootcert=str(self.authority),
        )
        connection.autocommit = True
        return connection

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement, none where it has none."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def revision(self) -> str:
        """Airflow's schema revision."""
        return str(self.query("SELECT version_num FROM alembic_version")[0][0])

    def shape(self) -> list[tuple[Any, ...]]:
        """Every column, index and constraint."""
        return self.query(SHAPE)


@contextmanager
def serving(folder: Path) -> Iterator[Database]:
    """A server in a folder, with an empty database."""
    paths = _Certificates(folder / "certificates")
    certificate = ensure_server_certificate(paths)
    sockets = tls_front.socket_folder(folder)
    server = PostgresServer(folder=folder / "server", sockets=sockets)
    server.initialize(master_user=USER)
    server.prepare_start()
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
        roles.wait_until_ready(server, timeout_seconds=START_SECONDS)
        roles.ensure_master(server, Master(user=USER, password=PASSWORD, database=NAME))
        database = Database(port=port, authority=ensure_ca(paths))
        _wait_for(database)
        yield database
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=START_SECONDS)
        for left in sockets.iterdir():
            left.unlink()
        sockets.rmdir()


@dataclass(frozen=True)
class _Certificates:
    certificates: Path


def _wait_for(database: Database) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            database.connect().close()
            return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
