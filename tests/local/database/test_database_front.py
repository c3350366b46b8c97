"""A real PostgreSQL behind its TLS front, as libpq sees it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest

from local.database.server import check_master_user, memory_bytes, settings
from local.database.standalone import Endpoint
from tests.local.database.endpoint import serving


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving(tmp_path_factory.mktemp("database")) as made:
        yield made


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
    connection, watcher = endpoint.connect(), endpoint.connect()
    watcher.autocommit = True

    def state(cursor: Any) -> str:
        cursor.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid])
        return str(cursor.fetchone()[0])

    with ThreadPoolExecutor() as pool, connection.cursor() as cursor, watcher.cursor() as watching:
        sleeping = pool.submit(cursor.execute, "SELECT pg_sleep(60)")
        while state(watching) != "active":
            assert not sleeping.done(), "it was never seen asleep"
            time.sleep(0.02)
        connection.cancel()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            sleeping.result()
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    connection.close()
    watcher.close()


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
