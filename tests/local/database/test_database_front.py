"""A real PostgreSQL behind its TLS front, as libpq sees it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from local import tls_front
from local.certificates import ensure_ca, ensure_server_certificate
from local.database import roles
from local.database.server import Master, PostgresServer, check_master_user, memory_bytes, settings
from local.database.verifier import TokenVerifier

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = 'it\'s "odd" but 1 password'


class Endpoint:
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


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("database")
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


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_password_log_in_over_verified_tls(endpoint: Endpoint, negotiation: str) -> None:
    connection = endpoint.connect(sslnegotiation=negotiation)
    with connection.cursor() as cursor:
        cursor.execute("SHOW max_connections")
        assert cursor.fetchone() == ("112",)
    connection.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sslmode": "disable"}, "connect with TLS"),
        ({"password": "wrong"}, "password authentication failed"),
        ({"user": "rdsadmin"}, "password authentication failed"),
        ({"user": "load_metric", "password": "bad"}, "PAM authentication failed"),
        ({"user": "nobody_here"}, "password authentication failed"),
        ({"sslrootcert": "/dev/null"}, "certificate"),
    ],
)
def test_wrong_log_in_is_refused(endpoint: Endpoint, wrong: dict[str, str], message: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match=message):
        endpoint.connect(**wrong)


def test_role_with_rds_iam_logs_in_with_its_token(endpoint: Endpoint) -> None:
    connection = endpoint.connect(user="load_metric", password="good")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("load_metric",)
    connection.close()


def test_master_is_no_superuser_and_may_make_roles_and_databases(endpoint: Endpoint) -> None:
    connection = endpoint.connect()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        )
        assert cursor.fetchone() == (False, True, True)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("COPY pg_database TO '/tmp/never'")
    connection.close()


def test_cancel_request_reaches_the_server(endpoint: Endpoint) -> None:
    connection = endpoint.connect()
    connection.cancel()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()


@pytest.mark.parametrize("name", ["rdsadmin", "pg_x", "", "1a", "a b", "a" * 64, 'a"b'])
def test_reserved_or_odd_master_user_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="MasterUsername"):
        check_master_user(name)


@pytest.mark.parametrize("name", ["db.x9.huge", "t4g.micro", "db.t4g", "db.t4g.giant"])
def test_unknown_instance_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="DBInstanceClass"):
        memory_bytes(name)


def test_connections_are_capped_as_on_rds() -> None:
    assert settings(memory_bytes("db.r7g.16xlarge"))["max_connections"] == "5000"
