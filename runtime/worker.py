"""The life of a worker: it preloads what every task imports, and leaves by itself when it is not needed.

Nobody ever stops a busy worker. It stops consuming first and looks again, so a task that arrives meanwhile is run.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker import state

from runtime.fleet import Fleet
from runtime.health import WORKER_FILE

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
FLEET_SECONDS = 15.0
# After consuming has stopped, a message on its way gets this long to arrive and be seen.
SETTLE_SECONDS = 3.0
# What a task imports beyond what the worker's parent has: imported once there, every forked child has it.
PRELOADED = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.models.serialized_dag",
    "airflow.providers.amazon.aws.log.s3_task_handler",
)


def preload(**_: Any) -> None:
    """Import what tasks import, before the pool forks."""
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            log.warning("not preloaded: %s", error)


def add_leave_step(instance: Any = None, **_: Any) -> None:
    """Give the worker its leave step, when this process is a worker of a fleet."""
    if instance is not None and "UPDRAFT_QUEUE" in os.environ:
        instance.app.steps["worker"].add(LeaveStep)


class Departure:
    """Decides, tick by tick, whether a worker goes on, stops consuming, comes back, or leaves."""

    def __init__(self, *, idle_seconds: float, now: float) -> None:
        self._idle_seconds = idle_seconds
        self._busy_at = now
        self._closed_at: float | None = None

    def tick(self, *, busy: bool, spare: bool, outdated: bool, now: float) -> str:
        """Return `stay`, `close` (stop consuming), `reopen` or `leave`.

        `spare`: the fleet has enough without this worker; `outdated`: a newer revision exists.
        """
        if busy:
            self._busy_at = now
        if self._closed_at is None:
            wants = outdated or (spare and now - self._busy_at >= self._idle_seconds)
            if not wants:
                return "stay"
            self._closed_at = now
            return "close"
        if busy:
            # A task came in between: it is run; an outdated worker still takes no other.
            if outdated:
                return "stay"
            self._closed_at = None
            return "reopen"
        return "leave" if now - max(self._closed_at, self._busy_at) >= SETTLE_SECONDS else "stay"


class LeaveStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Touches the liveness file, watches the fleet, and ends the worker with exit code 0 when it may go."""

    # The consumer starts last and does not return: what needs it finished would never start.
    requires = frozenset({"celery.worker.components:Timer", "celery.worker.components:Pool"})

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._queue = os.environ["UPDRAFT_QUEUE"]
        self._departure = Departure(
            idle_seconds=float(os.environ["UPDRAFT_WORKER_IDLE_SECONDS"]), now=time.monotonic()
        )
        self._fleet = Fleet(
            cluster=os.environ["UPDRAFT_CLUSTER"],
            family=f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}-worker-{self._queue}",
            least=int(os.environ["UPDRAFT_WORKER_MIN"]),
        )
        self._ended = threading.Event()

    def start(self, worker: Any) -> None:
        """Begin to tick, and to look at the fleet beside the event loop."""
        threading.Thread(target=self._watch_fleet, name="fleet", daemon=True).start()
        worker.timer.call_repeatedly(TICK_SECONDS, self._tick, (worker,))

    def stop(self, _worker: Any) -> None:
        """End the look at the fleet."""
        self._ended.set()

    def _watch_fleet(self) -> None:
        while not self._ended.wait(FLEET_SECONDS):
            self._fleet.look()

    def _tick(self, worker: Any) -> None:
        WORKER_FILE.touch()
        decision = self._departure.tick(
            busy=bool(state.reserved_requests or state.active_requests),
            spare=self._fleet.spare,
            outdated=self._fleet.outdated,
            now=time.monotonic(),
        )
        if decision == "close":
            log.warning("leaving: no longer consuming from %s", self._queue)
            worker.consumer.cancel_task_queue(self._queue)
        elif decision == "reopen":
            worker.consumer.add_task_queue(self._queue)
        elif decision == "leave":
            log.warning("leaving: idle, and the fleet has enough")
            state.should_stop = 0
