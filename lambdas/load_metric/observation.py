"""What a sample reads: task instances and schedules from Airflow's database, workers from ECS.

Every query is bounded by an index (`ti_state`, `idx_next_dagrun_create_after`) and by a statement time-out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lambdas.load_metric.logic import Load, Queue, Worker
from lambdas.load_metric.schedule import UNLIMITED, FirstTask, NextRun, expected_tasks, first_tasks

STATEMENT_TIMEOUT_MILLISECONDS = 5_000
MOST_RUNS = 500
# A run that is due and was not made within this time waits for something else than the scheduler's next loop.
LATEST_RUN_SECONDS = 60
MOST_CACHED_DAGS = 1_000
MOST_TASKS_DESCRIBED = 100
OCCUPYING = ("queued", "running")

TASKS_SQL = """
SELECT queue, pool, state, coalesce(hostname, ''), count(*), coalesce(sum(pool_slots), 0)::bigint,
  coalesce(extract(epoch FROM now() - min(queued_dttm)), 0)::float8
FROM task_instance WHERE state IN ('queued', 'running', 'restarting', 'deferred') GROUP BY 1, 2, 3, 4
"""
POOLS_SQL = "SELECT pool, slots, include_deferred FROM slot_pool"
RUNS_SQL = """
SELECT dag_id, extract(epoch FROM next_dagrun_create_after - now())::float8, coalesce(max_active_runs, 1),
  max_active_tasks,
  (SELECT count(*) FROM dag_run WHERE dag_run.dag_id = dag.dag_id AND dag_run.state IN ('running', 'queued')
    AND dag_run.run_type <> 'backfill')
FROM dag WHERE NOT is_paused AND NOT is_stale AND next_dagrun_create_after
  BETWEEN now() - make_interval(secs => :late) AND now() + make_interval(secs => :horizon)
ORDER BY next_dagrun_create_after LIMIT :most
"""
HASHES_SQL = """
SELECT DISTINCT ON (dag_id) dag_id, dag_hash, id::text FROM serialized_dag
WHERE dag_id = ANY(CAST(:dag_ids AS text[])) ORDER BY dag_id, created_at DESC
"""
# Only what the first tasks are found by: a whole DAG may have megabytes.
GRAPH_SQL = """
SELECT dag_hash, (
  SELECT jsonb_agg(jsonb_build_object('__var', jsonb_strip_nulls(jsonb_build_object(
    'task_id', task->'task_id', 'downstream_task_ids', task->'downstream_task_ids', '_is_empty', task->'_is_empty',
    'start_from_trigger', task->'start_from_trigger', 'queue', task->'queue', 'pool', task->'pool',
    'pool_slots', task->'pool_slots', 'partial_kwargs', jsonb_build_object(
      'queue', task->'partial_kwargs'->'queue', 'pool', task->'partial_kwargs'->'pool',
      'pool_slots', task->'partial_kwargs'->'pool_slots')))))
  FROM (SELECT value->'__var' AS task FROM jsonb_array_elements(data::jsonb->'dag'->'tasks')) AS tasks)
FROM serialized_dag WHERE id::text = ANY(CAST(:ids AS text[])) AND data IS NOT NULL
"""


@dataclass(frozen=True)
class Seen:
    """One look at the database: `running` by queue and worker address, `open_slots` by pool (-1: no limit)."""

    queued: Mapping[str, int]
    oldest_queued_seconds: Mapping[str, float]
    running: Mapping[str, Mapping[str, int]]
    open_slots: Mapping[str, int]
    runs: tuple[NextRun, ...]

    def load(self, queue: Queue) -> Load:
        """What this look says about one queue."""
        return Load(
            queued=self.queued.get(queue.queue, 0),
            oldest_queued_seconds=self.oldest_queued_seconds.get(queue.queue, 0.0),
            running=self.running.get(queue.queue, {}),
            expected=expected_tasks(
                self.runs, self.open_slots, queue=queue.queue, horizon_seconds=queue.horizon_seconds
            ),
        )


class DatabaseView:
    """Looks at one database; the first tasks of a DAG are read once for each version of it."""

    def __init__(self) -> None:
        self._graphs: dict[str, tuple[FirstTask, ...]] = {}

    def look(self, database: Any, *, horizon_seconds: float) -> Seen:
        """Run the bounded queries; raises what the driver raises."""
        database.run(f"SET statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        queued: Counter[str] = Counter()
        oldest: dict[str, float] = defaultdict(float)
        running: dict[str, Counter[str]] = defaultdict(Counter)
        occupied: Counter[tuple[str, bool]] = Counter()
        for queue, pool, state, host, tasks, slots, waited in database.run(TASKS_SQL):
            if state == "queued":
                queued[queue] += tasks
                oldest[queue] = max(oldest[queue], waited)
            elif state != "deferred":
                running[queue][host] += tasks
            if state in (*OCCUPYING, "deferred"):
                occupied[pool, state == "deferred"] += int(slots)
        open_slots = {
            pool: UNLIMITED
            if slots == UNLIMITED
            else max(0, slots - occupied[pool, False] - (occupied[pool, True] if counts_deferred else 0))
            for pool, slots, counts_deferred in database.run(POOLS_SQL)
        }
        return Seen(queued, oldest, running, open_slots, self._next_runs(database, horizon_seconds))

    def _next_runs(self, database: Any, horizon_seconds: float) -> tuple[NextRun, ...]:
        rows = database.run(RUNS_SQL, late=LATEST_RUN_SECONDS, horizon=horizon_seconds, most=MOST_RUNS)
        first = self._first_tasks(database, [row[0] for row in rows])
        return tuple(
            NextRun(
                dag_id=dag_id,
                starts_in_seconds=seconds,
                active_runs=active,
                max_active_runs=most_runs,
                max_active_tasks=most_tasks,
                first_tasks=first.get(dag_id, ()),
            )
            for dag_id, seconds, most_runs, most_tasks, active in rows
        )

    def _first_tasks(self, database: Any, dag_ids: list[str]) -> dict[str, tuple[FirstTask, ...]]:
        if not dag_ids:
            return {}
        newest = database.run(HASHES_SQL, dag_ids=dag_ids)
        unknown = [row_id for _, dag_hash, row_id in newest if dag_hash not in self._graphs]
        if len(self._graphs) > MOST_CACHED_DAGS:
            self._graphs.clear()
            unknown = [row_id for _, _, row_id in newest]
        if unknown:
            for dag_hash, tasks in database.run(GRAPH_SQL, ids=unknown):
                self._graphs[dag_hash] = first_tasks({"dag": {"tasks": tasks or []}})
        return {dag_id: self._graphs.get(dag_hash, ()) for dag_id, dag_hash, _ in newest}


def live_workers(ecs: Any, cluster: str, family: str, recent: Iterable[str]) -> list[Worker]:
    """The fleet's workers that run or are being started.

    `recent` are the ARNs of tasks started a moment ago: ECS lists are eventually consistent, descriptions by ARN
    hardly ever late, so that nothing is started twice.
    """
    pages = ecs.get_paginator("list_tasks").paginate(cluster=cluster, family=family, desiredStatus="RUNNING")
    arns = sorted({arn for page in pages for arn in page["taskArns"]} | set(recent))
    tasks = [
        task
        for first in range(0, len(arns), MOST_TASKS_DESCRIBED)
        for task in ecs.describe_tasks(cluster=cluster, tasks=arns[first : first + MOST_TASKS_DESCRIBED])[
            "tasks"
        ]
        if task["desiredStatus"] != "STOPPED"
    ]
    newest = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["taskDefinitionArn"]
    return [
        Worker(
            address=_address(task),
            current=task["taskDefinitionArn"] == newest,
            starting=task.get("healthStatus") not in ("HEALTHY", "UNHEALTHY"),
            spot=task.get("capacityProviderName") == "FARGATE_SPOT",
            sick=task.get("healthStatus") == "UNHEALTHY",
        )
        for task in tasks
    ]


def _address(task: Mapping[str, Any]) -> str | None:
    details = [detail for attachment in task.get("attachments", []) for detail in attachment["details"]]
    return next((detail["value"] for detail in details if detail["name"] == "privateIPv4Address"), None)
