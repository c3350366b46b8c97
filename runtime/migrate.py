"""The migration task: waits for the database, migrates the schema, and makes the log-ins that others rely on.

Safe to repeat. An image older than the schema, as in a rollback, changes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

DATABASE_SECONDS = 300
# What the load metric and sleep read.
READ_TABLES = ("task_instance", "dag_run", "dag", "dag_tag", "job", "serialized_dag", "slot_pool")


def main() -> None:
    """Run every step; any failure ends the task with a non-zero exit code, which fails the deployment."""
    wait_for_database()
    if schema_is_newer():
        print("the schema belongs to a newer Airflow than this image: left as it is", flush=True)
        return
    subprocess.run(["airflow", "db", "migrate"], check=True)
    ensure_admin(os.environ["UPDRAFT_ADMIN_USERNAME"], os.environ["UPDRAFT_ADMIN_PASSWORD"])
    with connect() as connection:
        ensure_metrics_role(connection, os.environ["UPDRAFT_METRICS_DATABASE_USER"])
    for name in filter(None, os.environ.get("UPDRAFT_EXTRA_DATABASES", "").split(",")):
        ensure_database(name)
    if warehouse := os.environ.get("UPDRAFT_WAREHOUSE_DATABASE"):
        ensure_warehouse(
            warehouse,
            username=os.environ["UPDRAFT_WAREHOUSE_USERNAME"],
            password=os.environ["UPDRAFT_WAREHOUSE_PASSWORD"],
        )
    print("migrated", flush=True)


def connect() -> Any:
    """A connection to Airflow's database as its owner."""
    return psycopg2.connect(
        host=os.environ["UPDRAFT_DATABASE_HOST"],
        port=os.environ["UPDRAFT_DATABASE_PORT"],
        dbname=os.environ["UPDRAFT_DATABASE_NAME"],
        user=os.environ["UPDRAFT_DATABASE_USER"],
        password=os.environ["UPDRAFT_DATABASE_PASSWORD"],
        sslmode="verify-full",
        sslrootcert=os.environ["UPDRAFT_DATABASE_CA_BUNDLE"],
        connect_timeout=10,
    )


def wait_for_database() -> None:
    """Return when the database takes connections; raises the last error after five minutes."""
    deadline = time.monotonic() + DATABASE_SECONDS
    while True:
        try:
            connect().close()
            return
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            print(f"waiting for the database: {error}", file=sys.stderr, flush=True)
            time.sleep(2)


def schema_is_newer() -> bool:
    """Whether the schema is at a revision that this image's Airflow doesn't know."""
    from airflow.utils.db import _get_alembic_config
    from alembic.script import ScriptDirectory

    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version')")
        if cursor.fetchone()[0] is None:
            return False
        cursor.execute("SELECT version_num FROM alembic_version")
        row = cursor.fetchone()
    known = {
        script.revision for script in ScriptDirectory.from_config(_get_alembic_config()).walk_revisions()
    }
    return row is not None and row[0] not in known


def ensure_admin(username: str, password: str) -> None:
    """The administrator exists and has the password of the secret, also after it was rotated."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        manager = builder.sm
        manager.sync_roles()
        role = manager.find_role("Admin")
        user = manager.find_user(username=username)
        if user is None:
            made = manager.add_user(
                username, "Updraft", "Admin", f"{username}@updraft.invalid", role, password
            )
            if not made:
                raise RuntimeError(f"the administrator '{username}' could not be made; see the log above")
        else:
            manager.reset_password(user.id, password)


def ensure_metrics_role(connection: Any, name: str) -> None:
    """A role that logs in by IAM alone and reads a few tables."""
    role = sql.Identifier(name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'rds_iam'")
        if cursor.fetchone() is not None:
            cursor.execute(sql.SQL("GRANT rds_iam TO {}").format(role))
        tables = sql.SQL(", ").join(map(sql.Identifier, READ_TABLES))
        cursor.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(tables, role))


def ensure_database(name: str) -> None:
    """Another database on the same instance, for example the tracking server's."""
    connection = connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    connection.close()


def ensure_warehouse(name: str, *, username: str, password: str) -> None:
    """The pipelines' database, and a role that may make schemas in it and has rights nowhere else."""
    ensure_database(name)
    database, role = sql.Identifier(name), sql.Identifier(username)
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (username,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        # Hashed here, so that no log of statements can hold it.
        hashed = encrypt_password(password, username, scope=connection, algorithm="scram-sha-256")
        cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD %s").format(role), (hashed,))
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        cursor.execute(
            sql.SQL("GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {} TO {}").format(database, role)
        )


if __name__ == "__main__":
    main()
