"""Why the fleets have the size that they have, and what size other rules would have given them."""

from __future__ import annotations

import csv
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.autoscaling.compare import compare, figures
from benchmarks.autoscaling.picture import picture
from benchmarks.autoscaling.simulation import Fleet
from benchmarks.autoscaling.traces import COLUMNS, HistoryError, from_history
from ops.console import OperatorError
from ops.target import Target
from stacks.sizes import Worker


def explain(target: Target, queue: str, *, minutes: int, now: float | None = None) -> list[dict[str, Any]]:
    """The samples of a queue in the last minutes, oldest first, as the load metric told them in its log.

    A sample that failed has `failed` with the reason instead. Raises OperatorError when the log can't be read.
    """
    known = target.config.workers
    if queue not in known:
        raise OperatorError(f"no queue '{queue}' in '{target.name}': there are {', '.join(known)}")
    group = target.output("scaling", "LoadMetricLogGroup")
    since = ((time.time() if now is None else now) - minutes * 60) * 1000
    try:
        pages = (
            target.client("logs")
            .get_paginator("filter_log_events")
            .paginate(logGroupName=group, startTime=int(since))
        )
        events = [event for page in pages for event in page["events"]]
    except (BotoCoreError, ClientError) as error:
        raise OperatorError(f"the log group {group} can't be read: {error}") from error
    return [row for event in events if (row := _row(event, queue)) is not None]


def _row(event: dict[str, Any], queue: str) -> dict[str, Any] | None:
    """One log event as a row; None when it says nothing about the queue."""
    text = event["message"].strip()
    try:
        told = json.loads(text) if text.startswith("{") else {}
    except ValueError:
        return None
    if "failed_sample" in told and told.get("queue", queue) == queue:
        return {
            "at": _clock(event["timestamp"] / 1000),
            "failed": told["failed_sample"],
            "reason": told["failed_sample"],
        }
    sample = told.get("sample")
    if sample is None or sample["queue"] != queue:
        return None
    metrics = sample["metrics"]
    return {
        "at": _clock(sample["at"]),
        "queued": metrics["QueuedTasks"],
        "running": metrics["RunningTasks"],
        "expected": metrics["ExpectedTasks"],
        "live": metrics["LiveWorkers"],
        "starting": metrics["StartingWorkers"],
        "wanted": sample["wanted"],
        "started": sample["start"],
        "reason": sample["reason"],
    }


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def simulate(target: Target, queue: str, history: Path, drawing: Path | None) -> dict[str, Any]:
    """Replay a history under every rule, with the queue's own bounds; returns figures by rule.

    Raises OperatorError with every mistake of the file.
    """
    known = target.config.workers
    if queue not in known:
        raise OperatorError(f"no queue '{queue}' in '{target.name}': there are {', '.join(known)}")
    try:
        trace = from_history(history)
    except HistoryError as error:
        raise OperatorError(str(error)) from error
    fleet = fleet_of(known[queue])
    comparison = compare(trace, fleet, seed=0)
    if drawing is not None:
        drawing.write_text(picture(comparison.results, fleet.slots, f"{target.name}, queue {queue}"))
    tasks = sum(len(stage.durations) for run in trace for stage in run.stages)
    return {"queue": queue, "runs": len(trace), "tasks": tasks, "rules": figures([comparison])}


def fleet_of(worker: Worker) -> Fleet:
    """The bounds of a queue's workers."""
    return Fleet(
        slots=worker.concurrency,
        min=worker.min,
        max=worker.max,
        start_seconds=float(worker.start_seconds),
        spot_percent=worker.spot_percent,
    )


def write_history(target: Target, queue: str, *, days: float, file: Path, now: float | None = None) -> int:
    """Write what Airflow's database holds of a queue's last days as a history; returns the number of tasks.

    It is read through Airflow's API, which is reached the same way on AWS and on the laptop.
    """
    since = _clock((time.time() if now is None else now) - days * 86_400)
    rows = [row for task in target.airflow().task_history(queue, since) if (row := _history_row(task))]
    if not rows:
        raise OperatorError(f"queue {queue} of '{target.name}' ran no task since {since}: nothing to replay")
    with file.open("w", newline="", encoding="utf-8") as output:
        writer = csv.writer(output)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return len(rows)


def _history_row(task: dict[str, Any]) -> tuple[Any, ...] | None:
    if task["duration"] is None or task["queued_when"] is None:
        return None
    run_id = task["dag_run_id"]
    scheduled = str(run_id.startswith("scheduled__")).lower()
    queued_at = datetime.fromisoformat(task["queued_when"]).timestamp()
    return (task["dag_id"], run_id, scheduled, queued_at, task["duration"])
