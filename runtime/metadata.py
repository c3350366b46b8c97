"""What the delivery of DAGs asks of Airflow's metadata database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2

TIMEOUT_SECONDS = 5
BUNDLE = "updraft"
# A run in one of these states may still start a task.
UNFINISHED = ("queued", "running")
# A run that has ended may be cleared, and then goes on with the code that it began with.
CLEARED_WITHIN_DAYS = 14


@dataclass(frozen=True)
class Serving:
    """What the dag-processor serves: `version` that it has switched to, the version that each active DAG was parsed
    from (`dag_versions`, by DAG id), and files with import errors."""

    version: str | None
    dag_versions: dict[str, str | None]
    import_errors: dict[str, str]


@contextmanager
def connect() -> Iterator[Any]:
    """A connection as the database's owner, closed at the end."""
    connection = psycopg2.connect(
        host=os.environ["UPDRAFT_DATABASE_HOST"],
        port=os.environ["UPDRAFT_DATABASE_PORT"],
        dbname=os.environ["UPDRAFT_DATABASE_NAME"],
        user=os.environ["UPDRAFT_DATABASE_USER"],
        password=os.environ["UPDRAFT_DATABASE_PASSWORD"],
        sslmode="verify-full",
        sslrootcert=os.environ["UPDRAFT_DATABASE_CA_BUNDLE"],
        connect_timeout=TIMEOUT_SECONDS,
    )
    try:
        # Each look is a snapshot of its own, and nothing is ever written.
        connection.set_session(readonly=True, autocommit=True)
        yield connection
    finally:
        connection.close()


def serving(connection: Any) -> Serving:
    """What is served now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT version FROM dag_bundle WHERE name = %s", (BUNDLE,))
        row = cursor.fetchone()
        cursor.execute(
            "SELECT dag_id, bundle_version FROM dag WHERE bundle_name = %s AND NOT is_stale", (BUNDLE,)
        )
        dags = dict(cursor.fetchall())
        cursor.execute("SELECT filename, stacktrace FROM import_error WHERE bundle_name = %s", (BUNDLE,))
        errors = dict(cursor.fetchall())
    return Serving(version=row[0] if row else None, dag_versions=dags, import_errors=errors)


def versions_in_use(connection: Any) -> list[str]:
    """Versions that an unfinished run, its queued tasks, one that may still be cleared or an active DAG needs."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT bundle_version FROM dag_run WHERE state = ANY(%(unfinished)s)"
            " OR end_date > now() - make_interval(days => %(days)s)"
            " UNION SELECT bundle_version FROM dag WHERE bundle_name = %(bundle)s AND NOT is_stale"
            " UNION SELECT version FROM dag_bundle WHERE name = %(bundle)s",
            {"unfinished": list(UNFINISHED), "days": CLEARED_WITHIN_DAYS, "bundle": BUNDLE},
        )
        return sorted(version for (version,) in cursor.fetchall() if version)
