"""The paths of a job's ownership: what is done to its task, and what should become of the job."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from benchmarks.account_faults import faults
from benchmarks.gpu_leak.observer import Airflow, Observer, SeenJob, kill_tree, service_pids, wait_for
from ops.console import OperatorError
from ops.target import Target

START_SECONDS = 300
LEAK_SECONDS = 60
# As in dags/gpu_leak.py.
TASK_TIMEOUT_SECONDS, RUN_TIMEOUT_SECONDS = 25, 120
END_SECONDS = 600
# Between the job's submission and the task's settled wait.
SETTLE_SECONDS = 6
Expected = Literal["stop", "adopt", "new"]
Done = dict[str, Any]


@dataclass(frozen=True)
class Path:
    """`job_seconds` is how long the job runs unless it is stopped; `variant` names the DAG."""

    name: str
    expected: Expected
    act: Callable[[Bench, str, str], None]
    variant: str = "plain"
    job_seconds: int = 400
    after_end: bool = False


class Bench:
    """The platform under test; an action on a service is done once for all runs that wait for it."""

    def __init__(self, target: Target, airflow: Airflow, observer: Observer) -> None:
        self.target = target
        self.airflow = airflow
        self.observer = observer

    def start(self, dag_id: str, seconds: int) -> str:
        """Trigger a run and wait until its job runs; returns the run's id."""
        run_id = self._trigger(dag_id, seconds)
        if not wait_for(lambda: self.observer.of(run_id), seconds=START_SECONDS):
            raise TimeoutError(f"{dag_id} {run_id}: no job after {START_SECONDS} s")
        waits = "deferred" if "_deferrable_" in dag_id else "running"
        wait_for(lambda: self.airflow.state(dag_id, run_id) == waits, seconds=SETTLE_SECONDS)
        return run_id

    def _trigger(self, dag_id: str, seconds: int) -> str:
        """A DAG that was pushed a moment ago is listed before it can be started."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return str(self.airflow.trigger(dag_id, {"seconds": seconds})["dag_run_id"])
            except OperatorError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def kill_service(self, service: str) -> None:
        """SIGKILL every container of a service at once."""
        for pid in service_pids(self.target, service):
            kill_tree(pid)

    def drain_workers(self) -> None:
        """SIGTERM to each worker's parent, as ECS stops a container."""
        for pid in service_pids(self.target, "worker-default"):
            os.kill(pid, signal.SIGTERM)

    def restart_triggerer(self, *, abrupt: bool) -> None:
        """End the triggerer with SIGKILL or SIGTERM and wait until its processes are gone."""
        before = service_pids(self.target, "triggerer")
        for pid in before:
            if abrupt:
                kill_tree(pid)
            else:
                os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not set(before) & set(service_pids(self.target, "triggerer")), seconds=START_SECONDS)


def _nothing(_bench: Bench, _dag_id: str, _run_id: str) -> None:
    """The time-out acts by itself."""


USER_PATHS = (
    Path("clear while running", "new", lambda bench, dag, run: bench.airflow.clear(dag, run), job_seconds=45),
    Path("mark failed", "stop", lambda bench, dag, run: bench.airflow.mark(dag, run, "failed")),
    Path("mark success", "stop", lambda bench, dag, run: bench.airflow.mark(dag, run, "success")),
    Path("run deleted", "stop", lambda bench, dag, run: bench.airflow.delete(dag, run)),
    Path(
        "DAG deleted", "stop", lambda bench, dag, run: bench.airflow.delete_dag(dag, run), variant="deleted"
    ),
    Path("execution time-out", "stop", _nothing, variant="task_timeout"),
    Path("DAG run time-out", "stop", _nothing, variant="run_timeout"),
    Path(
        "clear of a finished task",
        "new",
        lambda bench, dag, run: bench.airflow.clear(dag, run),
        job_seconds=10,
        after_end=True,
    ),
)
# One action hits every run at once, so it is done by the caller.
SERVICE_PATHS: dict[str, Callable[[Bench], None]] = {
    "triggerer killed": lambda bench: bench.kill_service("triggerer"),
    "scheduler killed": lambda bench: bench.kill_service("scheduler"),
    "worker drained": lambda bench: bench.drain_workers(),
    "worker killed": lambda bench: bench.kill_service("worker-default"),
}
# On from the submission to the run's end.
FAULT_PATHS: dict[str, dict[str, float]] = {
    "submission answered with an error": {"sagemaker_creations_unanswered_share": 1},
    "API throttled": {"sagemaker_throttled_share": 0.5},
}


def run_user_paths(bench: Bench, who: str, mode: str, names: list[str]) -> list[Done]:
    """Every path that acts on its own run alone, side by side."""
    chosen = [path for path in USER_PATHS if not names or path.name in names]
    with ThreadPoolExecutor(len(chosen) or 1) as pool:
        return list(pool.map(lambda path: _run_one(bench, path, who, mode), chosen))


def _run_one(bench: Bench, path: Path, who: str, mode: str) -> Done:
    dag_id = f"leak_{who}_{mode}_{path.variant}"
    try:
        run_id = bench.start(dag_id, path.job_seconds)
    except TimeoutError as error:
        return _row(path.name, path.expected, who, mode, "none") | {
            "happened": f"not started: {error}",
            "jobs": 0,
        }
    if path.after_end:
        wait_for(lambda: bench.airflow.run(dag_id, run_id)["state"] != "running", seconds=END_SECONDS)
    else:
        time.sleep(SETTLE_SECONDS)
    [first] = bench.observer.of(run_id)
    acted_at = time.monotonic()
    path.act(bench, dag_id, run_id)
    row = _row(path.name, path.expected, who, mode, run_id)
    if path.expected == "stop":
        row |= _judge_stop(bench, run_id, _due_at(bench, path, dag_id, run_id, acted_at))
    else:
        row |= _judge_new(bench, dag_id, run_id, first, acted_at)
    _clean_up(bench, dag_id, run_id)
    return row


def run_service_path(bench: Bench, name: str, job_seconds: int, modes: list[tuple[str, str]]) -> list[Done]:
    """One blow to a service while a run of each kind waits for its job."""
    return _run_together(bench, name, job_seconds, modes, blow=lambda: SERVICE_PATHS[name](bench))


def run_fault_path(bench: Bench, name: str, job_seconds: int, modes: list[tuple[str, str]]) -> list[Done]:
    """A run of each kind while SageMaker answers badly."""
    with faults(**FAULT_PATHS[name]):
        return _run_together(bench, name, job_seconds, modes, blow=lambda: None)


def _run_together(
    bench: Bench, name: str, job_seconds: int, modes: list[tuple[str, str]], *, blow: Callable[[], None]
) -> list[Done]:
    dags = [(who, mode, f"leak_{who}_{mode}_plain") for who, mode in modes]
    with ThreadPoolExecutor(len(dags)) as pool:
        runs = list(pool.map(lambda dag: bench.start(dag[2], job_seconds), dags))
        time.sleep(SETTLE_SECONDS)
        blow()
        judged = list(pool.map(lambda dag, run: _judge_adopt(bench, dag[2], run), dags, runs))
    return [
        _row(name, "adopt", who, mode, run_id) | verdict
        for (who, mode, _), run_id, verdict in zip(dags, runs, judged, strict=True)
    ]


def _row(path: str, expected: Expected, who: str, mode: str, run_id: str) -> Done:
    return {"path": path, "operators": who, "mode": mode, "expected": expected, "run_id": run_id}


def _due_at(bench: Bench, path: Path, dag_id: str, run_id: str, acted_at: float) -> float:
    """When the job should stop; a task's time-out counts from the start of its code, a moment before its job is seen."""
    if path.variant == "task_timeout":
        return bench.observer.of(run_id)[0].seen_at + TASK_TIMEOUT_SECONDS
    if path.variant == "run_timeout":
        started = datetime.fromisoformat(bench.airflow.run(dag_id, run_id)["start_date"])
        return time.monotonic() + RUN_TIMEOUT_SECONDS - (datetime.now(UTC) - started).total_seconds()
    return acted_at


def _judge_stop(bench: Bench, run_id: str, due_at: float) -> Done:
    """How long the first job ran on after its task had ended."""
    [first, *_] = bench.observer.of(run_id)
    wait_for(lambda: first.left_at, seconds=due_at - time.monotonic() + LEAK_SECONDS)
    # A time-out's retry may start a job of its own; what counts is the one that was timed out.
    return {
        "happened": "leak" if first.left_at is None else "stop",
        "leak_seconds": None if first.left_at is None else round(max(0.0, first.left_at - due_at), 1),
        "jobs": len(bench.observer.of(run_id)),
    }


def _judge_new(bench: Bench, dag_id: str, run_id: str, first: SeenJob, acted_at: float) -> Done:
    """Whether a second job ran to its end, and how long the first one ran on beside it."""
    wait_for(lambda: len(bench.observer.of(run_id)) > 1, seconds=END_SECONDS)
    wait_for(lambda: bench.airflow.run(dag_id, run_id)["state"] in ("success", "failed"), seconds=END_SECONDS)
    jobs = bench.observer.of(run_id)
    second = jobs[1] if len(jobs) > 1 else None
    beside = 0.0
    if second is not None:
        beside = max(0.0, min(first.left_at or time.monotonic(), time.monotonic()) - second.seen_at)
    stopped_after = max(0.0, (first.left_at or time.monotonic()) - acted_at)
    completed = first.status == "Completed" and first.left_at is not None and first.left_at > acted_at
    return {
        "happened": "leak" if completed else "new" if len(jobs) == 2 else f"{len(jobs)} jobs",
        "leak_seconds": round(stopped_after, 1),
        "paid_beside_seconds": round(beside, 1),
        "jobs": len(jobs),
        "state": bench.airflow.run(dag_id, run_id)["state"],
    }


def _judge_adopt(bench: Bench, dag_id: str, run_id: str) -> Done:
    """Whether the run ended well with the job that it had."""
    wait_for(lambda: bench.airflow.run(dag_id, run_id)["state"] in ("success", "failed"), seconds=END_SECONDS)
    state = bench.airflow.run(dag_id, run_id)["state"]
    jobs = bench.observer.of(run_id)
    stopped = sum(job.status in ("Stopped", "Stopping") for job in jobs)
    row = {
        "happened": "adopt"
        if len(jobs) == 1 and not stopped and state == "success"
        else f"{len(jobs)} jobs, {stopped} stopped, run {state}",
        "jobs": len(jobs),
        "paid_twice": len(jobs) - 1,
        "wrong_stops": stopped,
        "state": state,
    }
    _clean_up(bench, dag_id, run_id)
    return row


def _clean_up(bench: Bench, dag_id: str, run_id: str) -> None:
    """No job and no run is left for the next path."""
    for job in bench.observer.of(run_id):
        if job.left_at is None:
            bench.observer.stop(job)
    try:
        bench.airflow.mark(dag_id, run_id, "failed")
    except Exception:
        return  # the run is gone, or ended
