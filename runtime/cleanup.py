"""Removes old runs, logs and XComs from the metadata database: a task of its own, once a day.

Tasks of DAGs have no way into the database in Airflow 3, so this is no DAG; and what keeps the database small should
not depend on DAGs that run.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

# Short transactions: the scheduler goes on meanwhile.
ROWS_AT_ONCE = 5_000


def command(now: datetime, retention_days: int) -> list[str]:
    """The `airflow db clean` that keeps `retention_days` days before `now`."""
    before = (now - timedelta(days=retention_days)).isoformat(timespec="seconds")
    return ["airflow", "db", "clean", "--clean-before-timestamp", before] + [
        "--skip-archive", "--yes", "--error-on-cleanup-failure", "--batch-size", str(ROWS_AT_ONCE),
    ]  # fmt: skip


def main() -> None:
    """Become `airflow db clean`; its exit code is the task's."""
    clean = command(datetime.now(UTC), int(os.environ["UPDRAFT_METADATA_RETENTION_DAYS"]))
    os.execvp(clean[0], clean)


if __name__ == "__main__":
    main()
