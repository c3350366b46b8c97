"""Loads to replay: synthetic ones after published statistics, and a CSV of one's own history.

Sources, as far as they are used below:
- Shopify 2022 (shopify.engineering/lessons-learned-apache-airflow-scale): 10,000 DAGs, 150,000 runs a day, 400 tasks
  running on average; runs gather at round times. So a DAG runs 15 times a day and a run takes 400 * 86,400 / 150,000
  = 230 task-seconds.
- Apache Airflow Survey 2019 (airflow.apache.org/blog/airflow-survey): tasks in the largest DAG of each of 308 users;
  one in seven is above 200 (45 of 308).
- Weng et al., MLaaS in the Wild, NSDI 2022: run time of GPU instances, median 23 minutes, 90th percentile 4.5 hours (quoted
  from memory of the paper, not checked again at its source).
"""

from __future__ import annotations

import csv
import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
RUNS_A_DAY = 15
TASK_SECONDS_A_RUN = 230
GPU_MEDIAN_SECONDS = 23 * 60
GPU_P90_SECONDS = 4.5 * HOUR_SECONDS
NORMAL_P90 = 1.2816


@dataclass(frozen=True)
class Stage:
    """Tasks that start together, `after_seconds` after all of the stage before have ended; durations in seconds."""

    durations: tuple[float, ...]
    after_seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """One DAG run; a scheduled one is known ahead by the DAG's schedule, as soon as the run before was made."""

    dag_id: str
    at: float
    scheduled: bool
    stages: tuple[Stage, ...]


Trace = list[Run]


def cron(chance: random.Random) -> Trace:
    """500 scheduled DAGs that extract, fan out and load; most begin at round times."""
    runs: Trace = []
    for number in range(500):
        period, phase = chance.choices(
            [(HOUR_SECONDS, 0), (HOUR_SECONDS, 60 * chance.randrange(60)), (DAY_SECONDS, HOUR_SECONDS * chance.choice((0, 0, 1, 2, 3, 6))), (900, 0)],
            weights=[35, 20, 40, 5],
        )[0]  # fmt: skip
        width = chance.choice((1, 1, 2, 4, 8))
        # Width and length go against each other, so that runs take the published time on average.
        mean = TASK_SECONDS_A_RUN / (2 + width)
        at = float(phase)
        while at < DAY_SECONDS:
            stages = (
                Stage((_length(chance, mean),)),
                Stage(tuple(_length(chance, mean) for _ in range(width))),
                Stage((_length(chance, mean),)),
            )
            runs.append(Run(f"etl-{number}", at, True, stages))
            at += period
    return runs


def bursts(chance: random.Random) -> Trace:
    """Backfills of 200 to 500 tasks out of the blue, ten a day, over a few hourly DAGs."""
    runs = [
        Run(
            f"hourly-{number}",
            float(at),
            True,
            (Stage((_length(chance, 60),)), Stage((_length(chance, 60),))),
        )
        for number in range(20)
        for at in range(0, DAY_SECONDS, HOUR_SECONDS)
    ]
    for number in range(10):
        tasks = tuple(_length(chance, 90) for _ in range(chance.randint(200, 500)))
        runs.append(
            Run(f"backfill-{number}", chance.uniform(0, DAY_SECONDS - HOUR_SECONDS), False, (Stage(tasks),))
        )
    return runs


def adhoc(chance: random.Random) -> Trace:
    """People start runs by hand, mostly in working hours; a few take hours."""
    runs: Trace = []
    at = 0.0
    while True:
        hour = at / HOUR_SECONDS
        rate = 1 + 14 * math.exp(-(((hour - 14) / 4) ** 2))
        at += chance.expovariate(rate * 6 / HOUR_SECONDS)
        if at >= DAY_SECONDS:
            return runs
        width = chance.choice((1, 1, 1, 2, 4, 10))
        stages = tuple(
            Stage(tuple(_length(chance, 120, sigma=1.6) for _ in range(width)))
            for _ in range(chance.randint(1, 3))
        )
        runs.append(Run("adhoc", at, False, stages))


def deferred(chance: random.Random) -> Trace:
    """Hourly and daily trainings: prepare, submit, wait in the triggerer for a GPU job, look at the result."""
    sigma = math.log(GPU_P90_SECONDS / GPU_MEDIAN_SECONDS) / NORMAL_P90
    runs: Trace = []
    for number in range(60):
        period = chance.choice((HOUR_SECONDS, 4 * HOUR_SECONDS, DAY_SECONDS))
        at = float(HOUR_SECONDS * chance.randrange(24) % period + 60 * chance.choice((0, 0, 0, 15, 30, 45)))
        while at < DAY_SECONDS:
            waits = min(chance.lognormvariate(math.log(GPU_MEDIAN_SECONDS), sigma), DAY_SECONDS)
            stages = (
                Stage((_length(chance, 90),)),
                Stage((chance.uniform(5, 15),)),
                Stage((chance.uniform(5, 15),), after_seconds=waits),
                Stage((_length(chance, 60),)),
            )
            runs.append(Run(f"training-{number}", at, True, stages))
            at += period
    return runs


def _length(chance: random.Random, mean_seconds: float, sigma: float = 1.0) -> float:
    """A log-normal duration with this mean, between one second and six hours."""
    value = chance.lognormvariate(math.log(mean_seconds) - sigma**2 / 2, sigma)
    return min(max(value, 1.0), 6.0 * HOUR_SECONDS)


TRACES: dict[str, Callable[[random.Random], Trace]] = {
    "cron": cron,
    "bursts": bursts,
    "adhoc": adhoc,
    "deferred": deferred,
}
COLUMNS = ("dag_id", "run_id", "scheduled", "queued_at", "duration_seconds")


class HistoryError(ValueError):
    """Every mistake of a history file, one line each."""


def from_history(path: Path) -> Trace:
    """A trace from a CSV with the columns dag_id, run_id, scheduled, queued_at, duration_seconds: one row a task.

    `queued_at` is in seconds (any zero), `scheduled` is true or false. Each task keeps its distance from the run's
    first one. Raises HistoryError with all mistakes.
    """
    mistakes: list[str] = []
    tasks: dict[tuple[str, str], list[tuple[float, float, bool]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise HistoryError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
            for number, row in enumerate(reader, start=2):
                try:
                    key, task = _task(row)
                    tasks[key].append(task)
                except ValueError as error:
                    mistakes.append(f"{path}:{number}: {error}")
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path}: can't be read: {error}") from error
    if not tasks and not mistakes:
        mistakes.append(f"{path}: no tasks in it")
    if mistakes:
        raise HistoryError("\n".join(mistakes[:20]))
    zero = min(task[0] for found in tasks.values() for task in found)
    return [_history_run(dag_id, sorted(found), zero) for (dag_id, _), found in tasks.items()]


def _task(row: dict[str, str]) -> tuple[tuple[str, str], tuple[float, float, bool]]:
    at, duration = float(row["queued_at"]), float(row["duration_seconds"])
    if not (math.isfinite(at) and math.isfinite(duration)) or duration < 0:
        raise ValueError(f"duration_seconds and queued_at must be finite and not negative, came {row}")
    scheduled = {"true": True, "false": False}.get(row["scheduled"].strip().lower())
    if scheduled is None:
        raise ValueError(f"scheduled: '{row['scheduled']}' is neither true nor false")
    return (row["dag_id"], row["run_id"]), (at, max(duration, 0.001), scheduled)


def _history_run(dag_id: str, tasks: list[tuple[float, float, bool]], zero: float) -> Run:
    """Tasks queued within the same five seconds are a stage; later ones follow when they did."""
    stages: list[Stage] = []
    end = group_at = tasks[0][0]
    group: list[float] = []
    for at, duration, _ in tasks:
        if group and at - group_at > 5:
            stages.append(Stage(tuple(group), max(0.0, group_at - end)))
            end = group_at + max(group)
            group = []
        if not group:
            group_at = at
        group.append(duration)
    stages.append(Stage(tuple(group), max(0.0, group_at - end)))
    return Run(dag_id, tasks[0][0] - zero, tasks[0][2], tuple(stages))
