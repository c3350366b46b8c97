"""The life of a worker: it preloads what every task imports, and leaves by itself when it is not needed.

SIGTERM, as a spot notice brings it, reaches the parent alone: Celery stops consuming and finishes what runs. Tasks
are told only when Fargate's time is nearly up, so that they can still clean up behind them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
import time
from typing import Any

import psutil
from celery import bootsteps
from celery.worker import state

from runtime.departure import Action, Departure
from runtime.fleet import Fleet
from runtime.health import WORKER_FILE

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
FLEET_SECONDS = 10.0
# A loop that has not turned for so long is not waiting for a broker that comes back: the worker takes no task any more.
HUNG_SECONDS = 600.0
# So long before SIGKILL a task gets SIGTERM: its supervisor escalates after five seconds, logs go to S3 after that.
LAST_CALL_SECONDS = 20.0
# What a task imports beyond what the worker's parent has: imported once there, every forked child has it.
PRELOADED = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.models.serialized_dag",
    "airflow.providers.amazon.aws.log.s3_task_handler",
    "runtime.lineage.listener",
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


class LeaveStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Touches the liveness file, watches the fleet, and ends the worker with exit code 0 when it may go."""

    # The consumer starts last and does not return: what needs it finished would never start.
    requires = frozenset({"celery.worker.components:Timer", "celery.worker.components:Pool"})

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._queue = os.environ["UPDRAFT_QUEUE"]
        self._stop_seconds = float(os.environ["UPDRAFT_STOP_SECONDS"])
        self._departure = Departure(
            idle_seconds=float(os.environ["UPDRAFT_WORKER_IDLE_SECONDS"]), now=time.monotonic()
        )
        self._fleet = Fleet(
            parameter=f"{os.environ['UPDRAFT_SSM_PREFIX']}/workers/{self._queue}",
            # As Airflow names this worker in its task instances (core.hostname_callable).
            address=socket.gethostbyname(socket.getfqdn()),
        )
        self._ended = threading.Event()
        self._ticked_at = time.monotonic()

    def start(self, worker: Any) -> None:
        """Begin to tick, and to look at the fleet beside the event loop."""
        threading.Thread(target=self._watch_fleet, args=(worker,), name="fleet", daemon=True).start()
        worker.timer.call_repeatedly(TICK_SECONDS, self._tick, (worker,))

    def stop(self, worker: Any) -> None:
        """End the look at the fleet; the pool, which stops next, waits for its tasks."""
        self._ended.set()
        threading.Thread(target=self._last_call, args=(worker,), name="last-call", daemon=True).start()

    def _watch_fleet(self, worker: Any) -> None:
        while not self._ended.wait(FLEET_SECONDS):
            self._fleet.look()
            silent_seconds = time.monotonic() - self._ticked_at
            if silent_seconds > HUNG_SECONDS and not _runs_tasks(worker):
                log.error("the event loop has not turned for %.0f s: the worker ends", silent_seconds)
                # Nothing that would be tidied up answers any more.
                os._exit(1)

    def _last_call(self, worker: Any) -> None:
        """Tell tasks that still run shortly before SIGKILL: the time since SIGTERM is known only from here on."""
        time.sleep(max(0.0, self._stop_seconds - LAST_CALL_SECONDS))
        for pid in worker.pool.info.get("processes", ()):
            log.warning("the time is up: SIGTERM to the task in process %s", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _tick(self, worker: Any) -> None:
        WORKER_FILE.touch()
        self._ticked_at = time.monotonic()
        consumer = worker.consumer.task_consumer
        consuming = consumer is not None and consumer.consuming_from(self._queue)
        action = self._departure.tick(
            order=self._fleet.order(time.time()),
            busy_slots=len(state.reserved_requests | state.active_requests),
            consuming=consuming,
            now=time.monotonic(),
        )
        if action is Action.LEAVE:
            log.warning("leaving: idle, and the fleet has enough")
            state.should_stop = 0
        elif action is Action.HOLD and consuming:
            log.warning(
                "no longer consuming from %s; %s tasks to finish", self._queue, len(state.active_requests)
            )
            worker.consumer.cancel_task_queue(self._queue)
        elif action is Action.CONSUME and not consuming and consumer is not None:
            log.warning("consuming from %s again", self._queue)
            worker.consumer.add_task_queue(self._queue)


def _runs_tasks(worker: Any) -> bool:
    """Whether a process of the pool has a child: every task of Airflow is a process of its own below one."""
    for pid in worker.pool.info.get("processes", ()):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).children():
                return True
    return False
