"""A discrete-event simulation of queue, workers and tasks, the same for every rule.

Celery gives a task to any worker that has a free slot. A worker bills from its start until its end. Start times vary
by a tenth; a spot worker is taken away after an exponential time, with two minutes' notice.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.autoscaling.traces import DAY_SECONDS, Run, Trace

SPOT_NOTICE_SECONDS = 120.0
SPOT_LIFE_SECONDS = 20 * 3600.0
START_TIME_SPREAD = 0.1
# A rule that kills its long tasks again and again never comes to its end.
LONGEST_SECONDS = 2.0 * DAY_SECONDS


@dataclass(frozen=True)
class Fleet:
    """The bounds that every rule keeps; `start_seconds` until a new worker takes tasks."""

    slots: int = 8
    min: int = 1
    max: int = 40
    start_seconds: float = 60.0
    spot_percent: int = 50


@dataclass
class Task:
    """One task on its way: `queued_at` of its latest try."""

    run: _RunState
    duration: float
    first: bool
    queued_at: float
    began_at: float = 0.0
    serial: int = 0


@dataclass(eq=False)
class SimWorker:
    """A worker: `ready` takes tasks unless `closed`; `state` is the rule's own."""

    number: int
    started_at: float
    spot: bool
    ready: bool = False
    closed: bool = False
    stopping: bool = False
    ended_at: float | None = None
    tasks: set[int] = field(default_factory=set)
    state: Any = None

    @property
    def address(self) -> str:
        return f"worker-{self.number}"


@dataclass
class _RunState:
    run: Run
    stage: int = 0
    left: int = 0


@dataclass
class Result:
    """What one simulation measured; waits in seconds by task, `timeline` of (second, load in slots, workers).

    `unfinished` runs were left when the simulation was given up, a day after its trace.
    """

    waits_first_scheduled: list[float]
    waits: list[float]
    killed: int
    spot_killed: int
    unfinished: int
    worker_seconds: float
    task_seconds: float
    intervals: list[tuple[float, float]]
    timeline: list[tuple[float, int, int]]
    end: float


class Rule(Protocol):
    """A scaling rule; `step` is called every `period_seconds`."""

    name: str
    period_seconds: float

    def step(self, sim: Simulation) -> None:
        """Look at the simulation and start, close or stop workers."""


class Simulation:
    """The world in which a rule works; see Rule."""

    def __init__(self, trace: Trace, fleet: Fleet, rule: Rule, seed: int) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.queue: deque[Task] = deque()
        self.workers: list[SimWorker] = []
        self.upcoming = deque(sorted((run for run in trace if run.scheduled), key=lambda run: run.at))
        self._rule = rule
        self._chance = random.Random(seed)
        self._serials = itertools.count()
        self._numbers = itertools.count()
        self._running: dict[int, tuple[Task, SimWorker]] = {}
        self._events: list[tuple[float, int, str, Any]] = []
        self._open_runs = len(trace)
        self._spot_started = 0
        self._started = 0
        self.result = Result([], [], 0, 0, 0, 0.0, 0.0, [], [], 0.0)
        for run in sorted(trace, key=lambda run: run.at):
            self._at(run.at, "run", run)

    # What a rule sees and does

    @property
    def running(self) -> int:
        """Tasks that hold a slot."""
        return len(self._running)

    def start_worker(self, *, spot: bool | None = None) -> SimWorker:
        """Start one; without a say about spot the fleet's share is kept."""
        if spot is None:
            spot = self._spot_started < round((self._started + 1) * self.fleet.spot_percent / 100)
        self._started += 1
        self._spot_started += spot
        worker = SimWorker(next(self._numbers), self.now, spot)
        self.workers.append(worker)
        spread = self._chance.uniform(1 - START_TIME_SPREAD, 1 + START_TIME_SPREAD)
        self._at(self.now + self.fleet.start_seconds * spread, "ready", worker)
        if spot:
            self._at(self.now + self._chance.expovariate(1 / SPOT_LIFE_SECONDS), "notice", worker)
        return worker

    def stop_worker(self, worker: SimWorker, *, grace_seconds: float) -> None:
        """Stop consuming at once and end when idle; what still runs after the grace is killed and queued again."""
        if worker.ended_at is not None or worker.stopping:
            return
        worker.stopping = worker.closed = True
        if worker.tasks:
            self._at(self.now + grace_seconds, "kill", worker)
        else:
            self._end(worker)

    def close(self, worker: SimWorker) -> None:
        """Stop consuming."""
        worker.closed = True

    def reopen(self, worker: SimWorker) -> None:
        """Consume again."""
        worker.closed = worker.stopping
        self._dispatch()

    # The world

    def simulate(self) -> Result:
        """Run until every task has ended."""
        for _ in range(self.fleet.min):
            worker = self.start_worker()
            worker.ready = True
        self._at(0.0, "step", None)
        while self._events:
            self.now, _, kind, what = heapq.heappop(self._events)
            if self.now > LONGEST_SECONDS:
                break
            getattr(self, f"_on_{kind}")(what)
            if not self._open_runs and kind == "task":
                break
        self.result.end = self.now
        self.result.unfinished = self._open_runs
        for worker in list(self.workers):
            self._end(worker)
        return self.result

    def _at(self, moment: float, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (moment, next(self._serials), kind, what))

    def _on_step(self, _: None) -> None:
        self._rule.step(self)
        if int(self.now) % 60 == 0:
            self.result.timeline.append((self.now, len(self.queue) + self.running, len(self.workers)))
        self._at(self.now + self._rule.period_seconds, "step", None)

    def _on_run(self, run: Run) -> None:
        if run.scheduled:
            self.upcoming.popleft()
        self._queue_stage(_RunState(run))

    def _queue_stage(self, state: _RunState) -> None:
        stage = state.run.stages[state.stage]
        state.left = len(stage.durations)
        for duration in stage.durations:
            self.queue.append(Task(state, duration, state.stage == 0, self.now))
        self._dispatch()

    def _on_stage(self, state: _RunState) -> None:
        self._queue_stage(state)

    def _dispatch(self) -> None:
        if not self.queue:
            return
        slots = self.fleet.slots
        free = [w for w in self.workers if w.ready and not w.closed and len(w.tasks) < slots]
        while self.queue and free:
            at = int(self._chance.random() * len(free))
            worker = free[at]
            self._begin(self.queue.popleft(), worker)
            if len(worker.tasks) >= slots:
                free[at] = free[-1]
                free.pop()

    def _begin(self, task: Task, worker: SimWorker) -> None:
        wait = self.now - task.queued_at
        self.result.waits.append(wait)
        if task.first and task.run.run.scheduled:
            self.result.waits_first_scheduled.append(wait)
        task.serial, task.began_at = next(self._serials), self.now
        worker.tasks.add(task.serial)
        self._running[task.serial] = (task, worker)
        self._at(self.now + task.duration, "task", task.serial)

    def _on_task(self, serial: int) -> None:
        if serial not in self._running:
            return
        task, worker = self._running.pop(serial)
        worker.tasks.discard(serial)
        self.result.task_seconds += task.duration
        self.result.intervals.append((task.began_at, self.now))
        if worker.stopping and not worker.tasks:
            self._end(worker)
        self._advance(task.run)
        self._dispatch()

    def _advance(self, state: _RunState) -> None:
        state.left -= 1
        if state.left:
            return
        state.stage += 1
        if state.stage == len(state.run.stages):
            self._open_runs -= 1
            return
        pause = state.run.stages[state.stage].after_seconds
        if pause:
            self._at(self.now + pause, "stage", state)
        else:
            self._queue_stage(state)

    def _on_ready(self, worker: SimWorker) -> None:
        worker.ready = worker.ended_at is None
        self._dispatch()

    def _on_notice(self, worker: SimWorker) -> None:
        if worker.ended_at is None:
            worker.stopping = worker.closed = True
            if worker.tasks:
                self._at(self.now + SPOT_NOTICE_SECONDS, "spot_kill", worker)
            else:
                self._end(worker)

    def _on_spot_kill(self, worker: SimWorker) -> None:
        self.result.spot_killed += self._kill(worker)

    def _on_kill(self, worker: SimWorker) -> None:
        self.result.killed += self._kill(worker)

    def _kill(self, worker: SimWorker) -> int:
        if worker.ended_at is not None:
            return 0
        lost = [self._running.pop(serial)[0] for serial in sorted(worker.tasks)]
        worker.tasks.clear()
        self._end(worker)
        for task in lost:
            self.queue.append(Task(task.run, task.duration, False, self.now))
        self._dispatch()
        return len(lost)

    def _end(self, worker: SimWorker) -> None:
        if worker.ended_at is None:
            worker.ended_at = self.now
            worker.ready = False
            self.result.worker_seconds += self.now - worker.started_at
            self.workers.remove(worker)
