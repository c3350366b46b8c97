"""What one version of Airflow writes to the database and reads from it: `python benchmarks/upgrade/inside.py DO…`.

Runs in that version's own environment. DO is `fill` (log-in, variable, connection, pool), or `read`, which prints the
history as JSON on the last line.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

SECRET = "p@ss wörd"


def fill() -> None:
    """Things that stand in no DAG."""
    from airflow.models import Connection, Pool, Variable
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.session import create_session

    Variable.set("upgrade", SECRET)
    Pool.create_or_update_pool("upgrade", slots=7, description="kept", include_deferred=False)
    with create_session() as session:
        session.add(Connection(conn_id="upgrade", conn_type="http", host="example.invalid", password=SECRET))
    with get_application_builder() as builder:
        role = builder.sm.find_role("Op")
        builder.sm.add_user("olga", "Olga", "Op", "olga@example.invalid", role, SECRET)


def read() -> dict[str, Any]:
    """The history, secrets decrypted and the log-in checked, as this version's models see it."""
    from airflow.models import Connection, DagRun, Log, Pool, TaskInstance, Variable
    from airflow.models.asset import AssetEvent
    from airflow.models.dag_version import DagVersion
    from airflow.models.deadline_alert import DeadlineAlert
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.xcom import XComModel
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.session import create_session
    from sqlalchemy import func, select
    from werkzeug.security import check_password_hash

    with create_session() as session:
        runs = session.scalars(select(DagRun).order_by(DagRun.id)).all()
        tasks = session.scalars(select(TaskInstance)).all()
        xcoms = session.scalars(select(XComModel)).all()
        connection = session.scalars(select(Connection).where(Connection.conn_id == "upgrade")).one()
        serialized = SerializedDagModel.get("upgrade_history", session=session)
        history: dict[str, Any] = {
            "runs": [[item.run_id, item.state, item.conf, item.start_date, item.end_date] for item in runs],
            "tasks": sorted(
                [item.run_id, item.task_id, item.map_index, item.state, item.try_number, item.duration]
                for item in tasks
            ),
            "xcoms": sorted(
                [item.run_id, item.task_id, item.map_index, item.key, XComModel.deserialize_value(item)]
                for item in xcoms
            ),
            "variable": Variable.get("upgrade"),
            "connection": [connection.host, connection.password],
            "pools": sorted(
                [item.pool, item.slots, item.description] for item in session.scalars(select(Pool))
            ),
            "asset_events": session.scalar(select(func.count()).select_from(AssetEvent)),
            "dag_versions": session.scalar(select(func.count()).select_from(DagVersion)),
            "deadline_alerts": session.scalar(select(func.count()).select_from(DeadlineAlert)),
            # Commands write a line each, those that migrate among them.
            "log_lines": session.scalar(
                select(func.count()).select_from(Log).where(Log.event.not_like("cli_%"))
            ),
            "serialized_tasks": sorted(serialized.dag.task_ids) if serialized else None,
        }
    with get_application_builder() as builder:
        users = builder.sm.get_all_users()
        history["users"] = sorted([item.username, [role.name for role in item.roles]] for item in users)
        history["log_in"] = check_password_hash(builder.sm.find_user("olga").password, SECRET)
    return history


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in JSON")


def main() -> None:
    """Do what was asked, in its order."""
    for what in sys.argv[1:]:
        match what:
            case "fill":
                fill()
            case "read":
                print(json.dumps(read(), default=_text))
            case _:
                sys.exit(f"'{what}': choose fill or read")


if __name__ == "__main__":
    main()
