"""How many workers a queue wants. Pure: no AWS, no database, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """One fleet as the environment describes it; `slots` is the concurrency of one worker."""

    queue: str
    task_definition: str
    container: str
    slots: int
    min: int
    max: int
    capacity_provider: str


@dataclass(frozen=True)
class Load:
    """What one sample saw: task instances waiting for a slot, holding one, and workers alive or starting."""

    queued: int
    running: int
    workers: int


def wanted_workers(queue: Queue, load: Load) -> int:
    """Enough slots for all that is queued and running, within the fleet's bounds."""
    needed = math.ceil((load.queued + load.running) / queue.slots)
    return max(queue.min, min(queue.max, needed))


def missing_workers(queue: Queue, load: Load) -> int:
    """How many to start now. Never negative: workers leave by themselves."""
    return max(0, wanted_workers(queue, load) - load.workers)


def metric_data(environment: str, queue: Queue, load: Load) -> list[dict[str, object]]:
    """The sample as high-resolution CloudWatch metrics."""
    dimensions = [{"Name": "environment", "Value": environment}, {"Name": "queue", "Value": queue.queue}]
    values = {
        "QueuedTasks": load.queued,
        "RunningTasks": load.running,
        "LiveWorkers": load.workers,
        "WantedWorkers": wanted_workers(queue, load),
    }
    return [
        {
            "MetricName": name,
            "Dimensions": dimensions,
            "Value": value,
            "Unit": "Count",
            "StorageResolution": 1,
        }
        for name, value in values.items()
    ]
