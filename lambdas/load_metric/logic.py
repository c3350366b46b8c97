"""How many workers a queue wants, which ones stay, and why. Pure: no AWS, no database, no clock.

The simulator (`benchmarks/autoscaling`) runs these functions unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SAMPLE_SECONDS = 10
# A start is seen one sample late at most; a run is created and its tasks queued a few seconds after it is due.
LOOK_AHEAD_MARGIN_SECONDS = 2 * SAMPLE_SECONDS
# No worker is started for a few tasks alone while they are likely to get a slot before it would be there.
SMALL_SHARE_OF_SLOTS = 0.25
SHORT_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Queue:
    """One fleet as the environment describes it.

    `slots` is the concurrency of one worker, `start_seconds` the time from RunTask until a worker takes tasks,
    `spot_percent` the share of workers that run on Fargate Spot; the others start on `capacity_provider`.
    """

    queue: str
    task_definition: str
    slots: int
    min: int
    max: int
    start_seconds: float
    spot_percent: int = 0
    capacity_provider: str = "FARGATE"

    @property
    def horizon_seconds(self) -> float:
        """How far ahead the schedules are read: a worker started now is there when these runs begin."""
        return self.start_seconds + LOOK_AHEAD_MARGIN_SECONDS


@dataclass(frozen=True)
class Worker:
    """A living worker task. `address` is None until its network interface is attached.

    `current`: it runs the newest revision; `starting`: it is not known to take tasks yet; `sick`: its health check
    says that it takes none any more.
    """

    address: str | None
    current: bool
    starting: bool
    spot: bool = False
    sick: bool = False


@dataclass(frozen=True)
class Load:
    """What one sample saw: task instances waiting, expected within the horizon, and running by worker address.

    `oldest_queued_seconds`: how long the first of those that wait has been waiting.
    """

    queued: int
    expected: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    oldest_queued_seconds: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What to do about one queue: how many workers to start, who stays, who stops consuming at once."""

    wanted: int
    start: int
    start_spot: int
    keep: tuple[str, ...]
    closing: tuple[str, ...]
    reason: str


def decide(queue: Queue, load: Load, workers: Iterable[Worker], kept: Iterable[str]) -> Decision:
    """Size the fleet by slots. `kept` are the addresses kept so far: who stays changes as little as possible.

    What runs on workers of an older revision ends there and needs no slot; they take work until their successors
    are up, then stop consuming. A deployment may therefore double the fleet, never more. ECS leaves a sick task alone
    that belongs to no service: others take its place, and it ends itself (`runtime.worker`).
    """
    fleet = list(workers)
    current = [worker for worker in fleet if worker.current and not worker.sick]
    old = [worker for worker in fleet if not worker.current and not worker.sick]
    running = sum(_running(worker, load) for worker in current)
    demand = load.queued + load.expected + running
    needed = math.ceil(demand / queue.slots)
    wanted = max(queue.min, min(queue.max, needed))
    missing = wanted - len(current)
    if missing > 0 and wanted == needed > 1 and _can_wait(queue, load, demand - (needed - 1) * queue.slots):
        missing -= 1
    start = max(0, min(missing, 2 * queue.max - len(fleet)))
    sticky = set(kept)
    stay = _order(current, load, sticky)[:wanted]
    successors = sum(not worker.starting for worker in current)
    bridge = _order(old, load, sticky)[: max(0, wanted - successors)]
    keep = {worker.address for worker in (*stay, *bridge) if worker.address}
    closing = {worker.address for worker in old if worker.address} - keep
    return Decision(
        wanted=wanted,
        start=start,
        start_spot=_spot_among(start, queue, fleet),
        keep=tuple(sorted(keep)),
        closing=tuple(sorted(closing)),
        reason=_reason(queue, load, running, needed, wanted, current=len(current), start=start),
    )


def _can_wait(queue: Queue, load: Load, overflow: int) -> bool:
    """Whether what the last worker would be started for is little, and has not waited long."""
    return overflow <= queue.slots * SMALL_SHARE_OF_SLOTS and load.oldest_queued_seconds < SHORT_WAIT_SECONDS


def _running(worker: Worker, load: Load) -> int:
    return load.running.get(worker.address, 0) if worker.address else 0


def _order(workers: list[Worker], load: Load, kept: set[str]) -> list[Worker]:
    """Those already kept first, then the busiest: the emptiest are given up, for they are gone soonest."""
    return sorted(
        workers,
        key=lambda worker: (worker.address not in kept, -_running(worker, load), worker.address or "~"),
    )


def _spot_among(start: int, queue: Queue, fleet: list[Worker]) -> int:
    """How many of the new workers run on spot, so that the whole fleet comes nearest to its share."""
    spot = sum(worker.spot for worker in fleet)
    target = round((len(fleet) + start) * queue.spot_percent / 100)
    return max(0, min(start, target - spot))


def _reason(
    queue: Queue, load: Load, running: int, needed: int, wanted: int, *, current: int, start: int
) -> str:
    parts = f"({load.queued} queued + {running} running + {load.expected} expected)"
    bound = ""
    if needed > queue.max:
        bound = f", held at max {queue.max}"
    elif needed < queue.min:
        bound = f", raised to min {queue.min}"
    does = f"start {start}" if start else ("enough" if current == wanted else f"{current - wanted} may leave")
    if wanted > current and not start:
        does = f"{wanted - current} not started: few tasks that wait briefly, or workers of an older revision"
    return f"{parts} / {queue.slots} slots = {needed}{bound}; {current} live: {does}"
