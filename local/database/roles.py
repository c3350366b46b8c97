"""The roles and the database that a new RDS instance has, made through the administrator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from local.database.server import (
    ADMINISTRATOR,
    IAM_ROLE,
    SOCKET_PORT,
    SUPERUSER_ROLE,
    Master,
    PostgresServer,
)

# What RDS' rds_superuser may do, as far as PostgreSQL has predefined roles for it:
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Appendix.PostgreSQL.CommonDBATasks.Roles.rds_superuser.html
SUPERUSER_MEMBERSHIPS = ("pg_monitor", "pg_signal_backend", "pg_checkpoint", "pg_create_subscription")


@contextmanager
def administer(server: PostgresServer) -> Iterator[Connection]:
    """Open an autocommit connection as `rdsadmin`."""
    connection = psycopg2.connect(
        host=str(server.sockets),
        port=SOCKET_PORT,
        user=ADMINISTRATOR,
        password=server.administrator_password(),
        dbname="postgres",
        connect_timeout=5,
    )
    try:
        connection.autocommit = True
        yield connection
    finally:
        connection.close()


def wait_until_ready(server: PostgresServer, *, timeout_seconds: float) -> None:
    """Return when the server takes connections. Raises TimeoutError with the last refusal."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            with administer(server):
                return
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"PostgreSQL in {server.data} is not ready after {timeout_seconds:.0f} s: {error}"
                ) from error
        time.sleep(0.05)


def ensure_master(server: PostgresServer, master: Master) -> None:
    """Make `rds_iam`, `rds_superuser`, the master user and its database, whichever are missing.

    The master's password is set in any case: it follows the instance's record.
    """
    with administer(server) as connection, connection.cursor() as cursor:
        for role in (IAM_ROLE, SUPERUSER_ROLE):
            _create_role(cursor, role, "NOLOGIN")
        for membership in SUPERUSER_MEMBERSHIPS:
            cursor.execute(
                sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(
                    sql.Identifier(membership), sql.Identifier(SUPERUSER_ROLE)
                )
            )
        user = sql.Identifier(master.user)
        _create_role(cursor, master.user, "LOGIN CREATEDB CREATEROLE")
        cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD %s").format(user), (master.password,))
        cursor.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(SUPERUSER_ROLE), user))
        cursor.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(IAM_ROLE), user))
        _create_database(cursor, master.database, user)


def set_password(server: PostgresServer, *, user: str, password: str) -> None:
    """Change the role's password."""
    with administer(server) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD %s").format(sql.Identifier(user)), (password,))


def _create_role(cursor: Cursor, name: str, attributes: str) -> None:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE ROLE {} " + attributes).format(sql.Identifier(name)))


def _create_database(cursor: Cursor, name: str, owner: sql.Identifier) -> None:
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    if cursor.fetchone() is None:
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))
