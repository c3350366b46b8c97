"""The scaling rules: Updraft's own decision code unchanged, and the peers' as their sources describe them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from benchmarks.autoscaling.simulation import Fleet, Simulation, SimWorker
from lambdas.load_metric.logic import SAMPLE_SECONDS, Load, Queue, Worker, decide
from lambdas.load_metric.schedule import UNLIMITED, FirstTask, NextRun, expected_tasks
from runtime.departure import Action, Departure, Order

IDLE_SECONDS = 60.0
FOREVER = math.inf


class Updraft:
    """`decide`, `expected_tasks` and `Departure` as they run in the Lambda and in the workers."""

    name = "updraft"
    # Workers tick every second in truth; coarser here, they leave a little later.
    period_seconds = 5.0

    def __init__(self, fleet: Fleet, idle_seconds: float = IDLE_SECONDS) -> None:
        self._queue = Queue(
            "default", "worker", slots=fleet.slots, min=fleet.min, max=fleet.max,
            start_seconds=fleet.start_seconds, spot_percent=fleet.spot_percent,
        )  # fmt: skip
        self._idle_seconds = idle_seconds
        self._keep: set[str] = set()
        self._known: set[str] = set()
        self._steps = 0

    def step(self, sim: Simulation) -> None:
        """A sample every ten seconds; workers see its record at their next look, half a sample later."""
        if self._steps % int(SAMPLE_SECONDS / self.period_seconds) == 0:
            self._sample(sim)
        else:
            self._known = self._keep
        self._steps += 1
        for worker in list(sim.workers):
            if worker.ready and not worker.stopping:
                self._tick(sim, worker)

    def _sample(self, sim: Simulation) -> None:
        # ECS no longer lists a worker that has had its spot notice.
        living = [worker for worker in sim.workers if not worker.stopping]
        load = Load(
            queued=len(sim.queue),
            expected=expected_tasks(
                next_runs(sim, self._queue.horizon_seconds),
                {"default_pool": UNLIMITED},
                queue="default",
                horizon_seconds=self._queue.horizon_seconds,
            ),
            oldest_queued_seconds=sim.now - sim.queue[0].queued_at if sim.queue else 0.0,
            running={worker.address: len(worker.tasks) for worker in living},
        )
        workers = [Worker(w.address, current=True, starting=not w.ready, spot=w.spot) for w in living]
        decision = decide(self._queue, load, workers, self._keep)
        self._keep = set(decision.keep)
        for number in range(decision.start):
            sim.start_worker(spot=number < decision.start_spot)

    def _tick(self, sim: Simulation, worker: SimWorker) -> None:
        if worker.state is None:
            worker.state = Departure(idle_seconds=self._idle_seconds, now=sim.now)
        action = worker.state.tick(
            order=Order.STAY if worker.address in self._known else Order.SPARE,
            busy_slots=len(worker.tasks),
            consuming=not worker.closed,
            now=sim.now,
        )
        if action is Action.LEAVE:
            sim.stop_worker(worker, grace_seconds=0.0)
        elif action is Action.HOLD and not worker.closed:
            sim.close(worker)
        elif action is Action.CONSUME and worker.closed:
            sim.reopen(worker)


def next_runs(sim: Simulation, horizon_seconds: float) -> list[NextRun]:
    """What Airflow's dag table shows: of each DAG only the run that comes next."""
    found: dict[str, NextRun] = {}
    for run in sim.upcoming:
        if run.at - sim.now > horizon_seconds:
            break
        tasks = (FirstTask(),) * len(run.stages[0].durations)
        found.setdefault(run.dag_id, NextRun(run.dag_id, run.at - sim.now, 0, 16, 16, tasks))
    return list(found.values())


def _required(sim: Simulation, fleet: Fleet) -> int:
    needed = math.ceil((sim.running + len(sim.queue)) / fleet.slots)
    return max(fleet.min, min(fleet.max, needed))


class Mwaa:
    """(running + queued) / slots, once a minute. Busy workers are protected, so an idle one goes after two minutes.

    Amazon MWAA User Guide, "Automatic scaling"; the end of idle workers is taken in its favour: nothing ever dies,
    and none that holds a task keeps another from going.
    """

    name = "mwaa"
    period_seconds = 60.0
    idle_periods = 2

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def step(self, sim: Simulation) -> None:
        """Start what is missing, and let go of what has been idle."""
        required = _required(sim, self._fleet)
        living = [worker for worker in sim.workers if not worker.stopping]
        for worker in living:
            worker.state = 0 if worker.tasks or not worker.ready else (worker.state or 0) + 1
        idle = [worker for worker in living if (worker.state or 0) >= self.idle_periods]
        for worker in idle[: max(0, len(living) - required)]:
            sim.stop_worker(worker, grace_seconds=FOREVER)
        for _ in range(max(0, required - len(living))):
            sim.start_worker()


class Keda:
    """The Helm chart's rule: queued and running / concurrency, and the HPA behind it.

    The HPA looks every 15 s and scales in to the highest wish of the last 300 s (Kubernetes defaults), the newest
    workers first (StatefulSet); those get 600 s to finish (the chart's terminationGracePeriodSeconds).
    """

    name = "keda"
    period_seconds = 15.0
    stabilization_seconds = 300.0
    grace_seconds = 600.0

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._wishes: deque[tuple[float, int]] = deque()

    def step(self, sim: Simulation) -> None:
        """Follow the wish up at once, and down when it has been low for long."""
        self._wishes.append((sim.now, _required(sim, self._fleet)))
        while self._wishes[0][0] < sim.now - self.stabilization_seconds:
            self._wishes.popleft()
        wanted = max(wish for _, wish in self._wishes)
        living = [worker for worker in sim.workers if not worker.stopping]
        for worker in living[wanted:]:
            sim.stop_worker(worker, grace_seconds=self.grace_seconds)
        for _ in range(max(0, self._wishes[-1][1] - len(living))):
            sim.start_worker()


@dataclass
class Turbine:
    """One worker more at a load of 0.9 and above, one less at 0.5 and below, then 600 s of rest; the oldest dies.

    Its load is the share of polls that found no free slot, over five minutes: it knows a full worker from one that
    isn't, and nothing between.
    """

    fleet: Fleet
    name: str = "turbine"
    period_seconds: float = 60.0
    cooldown_seconds: float = 600.0
    _loads: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _acted_at: float = -FOREVER

    def step(self, sim: Simulation) -> None:
        """Move by one worker at most."""
        ready = [worker for worker in sim.workers if worker.ready and not worker.stopping]
        full = sum(len(worker.tasks) >= self.fleet.slots for worker in ready)
        self._loads.append(full / len(ready) if ready else 1.0)
        living = [worker for worker in sim.workers if not worker.stopping]
        for _ in range(max(0, self.fleet.min - len(living))):
            sim.start_worker()
        if sim.now - self._acted_at < self.cooldown_seconds:
            return
        load = sum(self._loads) / len(self._loads)
        if load >= 0.9 and len(living) < self.fleet.max:
            sim.start_worker()
            self._acted_at = sim.now
        elif load <= 0.5 and len(living) > self.fleet.min:
            sim.stop_worker(living[0], grace_seconds=0.0)
            self._acted_at = sim.now


RULES: dict[str, Any] = {"updraft": Updraft, "mwaa": Mwaa, "keda": Keda, "turbine": Turbine}
