"""The migration task: waits for the database, migrates the schema, and makes the log-ins that others rely on.

Safe to repeat. It tells by its exit code what else has to happen first (docs/upgrade.md), and has changed nothing then:
3, the schema is older than this image and Airflow's services may still be running; 4, the schema is newer than this
image, which can't read it. `--back-to` takes the schema back to what an older Airflow knows: only the newer image can.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

DATABASE_SECONDS = 300
EXIT_SERVICES_MUST_STOP = 3
EXIT_SCHEMA_IS_NEWER = 4
# What the load metric and sleep read.
READ_TABLES = ("task_instance", "dag_run", "dag", "dag_tag", "job", "serialized_dag", "slot_pool")
# Each package that has a schema, with the command that takes it back.
DOWNGRADES = {
    "apache-airflow": ("airflow", "db", "downgrade"),
    "apache-airflow-providers-fab": ("airflow", "fab-db", "downgrade"),
}


class Schema(Enum):
    """How the database's schema stands to what this image knows."""

    EMPTY = "empty"
    OLDER = "older"
    SAME = "same"
    NEWER = "newer"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every step and return the exit code; any failure raises, which fails the deployment."""
    parser = argparse.ArgumentParser(prog="python -m runtime.migrate", description=__doc__)
    parser.add_argument(
        "--services-stopped", action="store_true", help="nothing runs that would meet the newer schema"
    )
    parser.add_argument(
        "--back-to", nargs="+", metavar="PACKAGE==VERSION", help="the packages of the older image"
    )
    given = parser.parse_args(arguments)
    wait_for_database()
    if given.back_to:
        go_back(given.back_to)
        return 0
    found = revisions()
    state = compare(found)
    if state is Schema.NEWER:
        print(
            f"the database's schema is at {_text(found)}, which Airflow {_airflow_version()} of this image doesn't "
            "know: a newer Airflow has migrated it. Nothing was changed. Deploy that Airflow again, or let its "
            "image take the schema back (docs/upgrade.md)",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_SCHEMA_IS_NEWER
    if state is Schema.OLDER and not given.services_stopped:
        print(
            f"the database's schema is at {_text(found)}, older than Airflow {_airflow_version()} of this image. "
            "Nothing was changed: stop Airflow's services, then run this with --services-stopped",
            flush=True,
        )
        return EXIT_SERVICES_MUST_STOP
    migrate_schema(found)
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
    return 0


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


def version_tables() -> dict[str, Any]:
    """The scripts of every schema that this image has, by the table that holds its revision: Airflow's first."""
    from airflow.providers.fab.auth_manager.models.db import FABDBManager
    from airflow.utils.db import _get_script_object

    # Scripts are files: the manager needs a session for the database alone.
    return {
        "alembic_version": _get_script_object(),
        FABDBManager.version_table_name: FABDBManager(None).get_script_object(),
    }


def revisions() -> dict[str, str | None]:
    """The revision that the database is at, by version table; None where there is none yet."""
    found: dict[str, str | None] = {}
    with connect() as connection, connection.cursor() as cursor:
        for table in version_tables():
            cursor.execute("SELECT to_regclass(%s)", (table,))
            row = cursor.fetchone()
            if row[0] is not None:
                cursor.execute(sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(table)))
                row = cursor.fetchone()
            found[table] = row[0] if row else None
    return found


def compare(found: dict[str, str | None]) -> Schema:
    """How the found revisions stand to those that this image's scripts know and end at."""
    scripts = version_tables()
    known = {table: {item.revision for item in script.walk_revisions()} for table, script in scripts.items()}
    if any(revision is not None and revision not in known[table] for table, revision in found.items()):
        return Schema.NEWER
    if found["alembic_version"] is None:
        return Schema.EMPTY
    if all(script.get_heads() == [found[table]] for table, script in scripts.items()):
        return Schema.SAME
    return Schema.OLDER


def migrate_schema(found: dict[str, str | None]) -> None:
    """Migrate to this image's schema; a migration that fails leaves the one that it found.

    Each of Airflow's revisions is a transaction, so a failure in the middle would leave a schema that neither version
    knows. Raises CalledProcessError of the migration; of going back, when that fails too.
    """
    try:
        subprocess.run(["airflow", "db", "migrate"], check=True)
    except subprocess.CalledProcessError:
        before = found["alembic_version"]
        if before is not None:
            print(f"the migration failed: going back to revision {before}", file=sys.stderr, flush=True)
            subprocess.run([*DOWNGRADES["apache-airflow"], "--to-revision", before, "--yes"], check=True)
        raise


def go_back(packages: Sequence[str]) -> None:
    """Take the schema back to what these versions (`package==version`) know; history stays, newer columns go.

    Raises ValueError for a package without a schema, CalledProcessError where a version has no way back.
    """
    versions = dict(package.split("==", 1) for package in packages)
    if unknown := versions.keys() - DOWNGRADES.keys():
        raise ValueError(
            f"--back-to: {', '.join(sorted(unknown))} has no schema; allowed: {', '.join(DOWNGRADES)}"
        )
    for package, version in versions.items():
        print(f"taking the schema back to {package} {version}", flush=True)
        subprocess.run([*DOWNGRADES[package], "--to-version", version, "--yes"], check=True)


def _text(found: dict[str, str | None]) -> str:
    return ", ".join(f"{table} {revision}" for table, revision in found.items())


def _airflow_version() -> str:
    return importlib.metadata.version("apache-airflow")


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
    sys.exit(main())
