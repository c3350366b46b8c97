"""What the schedules will start soon: the next runs' first tasks, within every limit that Airflow will hold. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_QUEUE = "default"
DEFAULT_POOL = "default_pool"
UNLIMITED = -1


@dataclass(frozen=True)
class FirstTask:
    """A task that needs a worker and waits for no other one."""

    queue: str = DEFAULT_QUEUE
    pool: str = DEFAULT_POOL
    pool_slots: int = 1


@dataclass(frozen=True)
class NextRun:
    """A DAG's next scheduled run; `starts_in_seconds` is negative when the scheduler is about to create it."""

    dag_id: str
    starts_in_seconds: float
    active_runs: int
    max_active_runs: int
    max_active_tasks: int
    first_tasks: tuple[FirstTask, ...]


def first_tasks(serialized: Mapping[str, Any]) -> tuple[FirstTask, ...]:
    """The first tasks of a serialized DAG (`data` of Airflow's serialized_dag table, schema version 3).

    Empty tasks need no worker, so what follows them comes first; a task that starts in the triggerer takes no slot.
    A mapped task counts once: how often it will be expanded is not known before its run.
    """
    tasks = {item["__var"]["task_id"]: item["__var"] for item in serialized["dag"]["tasks"]}
    upstream: dict[str, set[str]] = {task_id: set() for task_id in tasks}
    for task_id, task in tasks.items():
        for below in task.get("downstream_task_ids", []):
            upstream[below].add(task_id)
    instant = {task_id for task_id, task in tasks.items() if task.get("_is_empty")}
    passed: set[str] = set()
    while ready := {task_id for task_id in instant - passed if upstream[task_id] <= passed}:
        passed |= ready
    first = [
        task
        for task_id, task in tasks.items()
        if task_id not in instant and upstream[task_id] <= passed and not task.get("start_from_trigger")
    ]
    # A mapped task has its arguments one level further down.
    arguments = [task.get("partial_kwargs", {}) | task for task in first]
    return tuple(
        FirstTask(
            queue=task.get("queue", DEFAULT_QUEUE),
            pool=task.get("pool", DEFAULT_POOL),
            pool_slots=int(task.get("pool_slots", 1)),
        )
        for task in arguments
    )


def expected_tasks(
    runs: Iterable[NextRun], open_slots: Mapping[str, int], *, queue: str, horizon_seconds: float
) -> int:
    """How many tasks of a queue the schedules start within the horizon.

    `open_slots` are the free slots of each pool, -1 without a limit. Runs take them in the order of their start;
    a run beyond its DAG's active runs waits, and so do its tasks beyond the active tasks of one run.
    """
    left = dict(open_slots)
    found: Counter[str] = Counter()
    for run in sorted(runs, key=lambda run: (run.starts_in_seconds, run.dag_id)):
        if run.starts_in_seconds > horizon_seconds or run.active_runs >= run.max_active_runs:
            continue
        for task in run.first_tasks[: run.max_active_tasks]:
            free = left.get(task.pool, 0)
            if free == UNLIMITED:
                found[task.queue] += 1
            elif task.pool_slots <= free:
                left[task.pool] = free - task.pool_slots
                found[task.queue] += 1
    return found[queue]
