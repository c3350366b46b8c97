"""How long a sample's look at the database takes with a million task instances: `python -m benchmarks.load_samples`.

Makes an embedded PostgreSQL with the settings of a db.t4g.micro and Airflow's real schema (`airflow db migrate`),
fills it, and times `DatabaseView.look` as the Lambda runs it. Prints one JSON document; exits 1 when the slowest
look takes a second or more, or a query reads task_instance from end to end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pg8000.native  # type: ignore[import-untyped]

from lambdas.load_metric.observation import POOLS_SQL, RUNS_SQL, TASKS_SQL, DatabaseView
from local.database.server import ADMINISTRATOR, PostgresServer, memory_bytes
from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin"
LONGEST_SECONDS = 1.0
START_SECONDS = 30
DAGS, DAGS_DUE, FIRST_TASKS = 2_000, 200, 10
ACTIVE = {"queued": 3_000, "running": 2_000, "deferred": 5_000}

FILL = f"""
SET session_replication_role = replica;
INSERT INTO dag_bundle (name, active) VALUES ('b', true);
INSERT INTO dag (dag_id, bundle_name, is_paused, is_stale, max_active_tasks, max_active_runs, max_consecutive_failed_dag_runs,
    has_task_concurrency_limits, timetable_type, partition_mapper_info, next_dagrun_create_after)
  SELECT 'dag-' || n, 'b', false, false, 16, 16, 0, false, 'cron', '[]',
    CASE WHEN n <= {DAGS_DUE} THEN now() ELSE now() + interval '1 day' END FROM generate_series(1, {DAGS}) AS n;
INSERT INTO serialized_dag (id, dag_id, dag_hash, dag_version_id, data, created_at, last_updated)
  SELECT gen_random_uuid(), 'dag-' || n, md5(n::text || '/' || version), gen_random_uuid(),
    jsonb_build_object('dag', jsonb_build_object('tasks', (SELECT jsonb_agg(jsonb_build_object('__var', jsonb_build_object(
      'task_id', 'task-' || t, 'downstream_task_ids', '[]'::jsonb, 'doc_md', repeat('x', 2000)))) FROM generate_series(1, {FIRST_TASKS}) AS t))),
    now() - version * interval '1 day', now() FROM generate_series(1, {DAGS}) AS n, generate_series(1, 5) AS version;
INSERT INTO dag_run (dag_id, run_id, state, run_type, logical_date, run_after, start_date, log_template_id, clear_number, span_status)
  SELECT 'dag-' || (n % {DAGS}), 'run-' || n, CASE WHEN n % 50 = 0 THEN 'running' ELSE 'success' END, 'scheduled',
    now() - n * interval '1 s', now(), now(), 1, 0, 'ENDED' FROM generate_series(1, 100000) AS n;
"""


def main() -> int:
    """Make, fill, measure, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="accepted for symmetry: the output is always JSON"
    )
    parser.add_argument("--task-instances", type=int, default=1_000_000)
    parser.add_argument("--looks", type=int, default=20)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="updraft-samples-"))
    folder.chmod(0o755)
    try:
        with server(folder) as connection:
            rows = fill(connection, arguments.task_instances)
            result = measure(connection, arguments.looks) | {"task_instances": rows, "dags": DAGS}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    return 0 if result["longest_seconds"] < LONGEST_SECONDS and not result["full_scans"] else 1


@contextmanager
def server(folder: Path) -> Iterator[Any]:
    """A migrated database on a Unix socket, and a connection to it."""
    postgres = PostgresServer(folder=folder / "server", sockets=folder / "sockets")
    postgres.sockets.mkdir()
    postgres.initialize(master_user="updraft")
    postgres.prepare_start()
    command = postgres.command(memory_bytes=memory_bytes("db.t4g.micro"))
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        connection = connect(postgres)
        connection.run("CREATE DATABASE airflow")
        connection.close()
        migrate(postgres, folder)
        connection = connect(postgres, "airflow")
        yield connection
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=START_SECONDS)


def connect(postgres: PostgresServer, database: str = "postgres") -> Any:
    """A connection, waiting until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return pg8000.native.Connection(
                ADMINISTRATOR,
                password=postgres.administrator_password(),
                database=database,
                unix_sock=str(postgres.socket),
            )
        except (pg8000.exceptions.InterfaceError, pg8000.exceptions.DatabaseError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def migrate(postgres: PostgresServer, folder: Path) -> None:
    """Airflow's own schema."""
    url = f"postgresql+psycopg2://{ADMINISTRATOR}:{postgres.administrator_password()}@/airflow?host={postgres.sockets}"
    environment = os.environ | {"AIRFLOW_HOME": str(folder), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
    environment["PATH"] = f"{AIRFLOW}{os.pathsep}{environment['PATH']}"
    subprocess.run(
        [str(AIRFLOW / "airflow"), "db", "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL
    )


def fill(connection: Any, task_instances: int) -> int:
    """History as a busy year leaves it; returns the number of task instances."""
    for statement in filter(str.strip, FILL.split(";\n")):
        connection.run(required(connection, statement))
    active = sum(ACTIVE.values())
    for state, count in {**ACTIVE, "success": task_instances - active}.items():
        connection.run(
            required(
                connection,
                f"""INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, state, queue, pool, pool_slots, hostname,
                  try_number, max_tries, queued_dttm)
                SELECT gen_random_uuid(), 'task-{state}-' || n, 'dag-' || (n % {DAGS}), 'run-' || (n % 100000 + 1), -1, '{state}',
                  'queue-' || (n % 4), 'default_pool', 1, '10.0.0.' || (n % 100), 1, 0, now() FROM generate_series(1, {count}) AS n""",
            )
        )
    connection.run("VACUUM ANALYZE")
    return int(connection.run("SELECT count(*) FROM task_instance")[0][0])


def required(connection: Any, statement: str) -> str:
    """The insert with every other column that may not be empty, so that it outlives new columns of Airflow's."""
    head, _, rest = statement.strip().partition("(")
    if not head.startswith("INSERT INTO"):
        return statement
    table = head.split()[2]
    names, _, source = rest.partition(")")
    known = {name.strip() for name in names.split(",")}
    columns = connection.run(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = :t AND is_nullable = 'NO'"
        " AND column_default IS NULL AND is_identity = 'NO'",
        t=table,
    )
    fillers = {
        "boolean": "false", "uuid": "gen_random_uuid()", "jsonb": "'{}'::jsonb", "json": "'{}'::json",
        "timestamp with time zone": "now()", "bytea": "'\\x80049503000000000000007d942e'::bytea",
    }  # fmt: skip
    missing = [(name, fillers.get(kind, "0" if "int" in kind or kind == "double precision" else "''"))
               for name, kind in columns if name not in known]  # fmt: skip
    extra = "".join(f", {name}" for name, _ in missing)
    values = "".join(f", {value}" for _, value in missing)
    if "VALUES" in source:
        return f"{head}({names}{extra}){source.rstrip().rstrip(')')}{values})"
    select, _, tail = (
        source.rpartition(" FROM generate_series") if "version;" not in source else (source, "", "")
    )
    if table == "serialized_dag":
        select, _, tail = source.rpartition(" FROM generate_series(1, " + str(DAGS) + ")")
        return f"{head}({names}{extra}){select}{values} FROM generate_series(1, {DAGS}){tail}"
    return f"{head}({names}{extra}){select}{values} FROM generate_series{tail}"


def measure(connection: Any, looks: int) -> dict[str, Any]:
    """Time the looks, the first with an empty cache, and read the plans."""
    connection.run(
        "UPDATE dag SET next_dagrun_create_after = now() + interval '30 s' WHERE next_dagrun_create_after < now() + interval '1 hour'"
    )
    view, seconds = DatabaseView(), []
    seen = None
    for _ in range(looks):
        began = time.monotonic()
        seen = view.look(connection, horizon_seconds=80)
        seconds.append(round(time.monotonic() - began, 4))
    assert seen is not None
    full_scans = [
        line[0].strip()
        for sql in (TASKS_SQL, POOLS_SQL, RUNS_SQL)
        for line in connection.run(
            f"EXPLAIN {sql}", **({"late": 60, "horizon": 80, "most": 500} if ":most" in sql else {})
        )
        if "Seq Scan on task_instance" in line[0] or "Seq Scan on dag_run" in line[0]
    ]
    return {
        "first_seconds": seconds[0],
        "median_seconds": sorted(seconds)[len(seconds) // 2],
        "longest_seconds": max(seconds),
        "full_scans": full_scans,
        "queued": sum(seen.queued.values()),
        "running": sum(sum(hosts.values()) for hosts in seen.running.values()),
        "next_runs": len(seen.runs),
        "first_tasks": sum(len(run.first_tasks) for run in seen.runs),
    }


if __name__ == "__main__":
    sys.exit(main())
