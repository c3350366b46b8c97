"""What SageMaker and Airflow show: each job's life by its DAG run, and the processes that the platform runs on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psutil
from botocore.exceptions import ClientError

from local import processes
from ops.airflow_api import AirflowApi
from ops.target import Target, local_paths

POLL_SECONDS = 0.5
TASK = "job"


@dataclass
class SeenJob:
    """One job; times are of this process's monotonic clock. `left_at` is when it first was not InProgress."""

    name: str
    run_id: str
    seen_at: float
    status: str = "InProgress"
    left_at: float | None = None


class Observer(threading.Thread):
    """Polls the list of processing jobs and keeps what it saw."""

    def __init__(self, target: Target) -> None:
        super().__init__(name="observer", daemon=True)
        self._client = target.client("sagemaker")
        self._halt = threading.Event()
        self._jobs: dict[str, SeenJob] = {}
        self._others: set[str] = set()

    def run(self) -> None:
        """Look until told to halt; a look that fails is made up for by the next one."""
        while not self._halt.wait(POLL_SECONDS):
            try:
                self._look()
            except ClientError:
                continue

    def halt(self) -> None:
        """End the thread."""
        self._halt.set()
        self.join()

    def of(self, run_id: str) -> list[SeenJob]:
        """The jobs of one DAG run, oldest first."""
        return sorted(
            (job for job in self._jobs.values() if job.run_id == run_id), key=lambda job: job.seen_at
        )

    def stop(self, job: SeenJob) -> None:
        """End what a path has left running, so that the next one starts from nothing."""
        self._client.stop_processing_job(ProcessingJobName=job.name)

    def _look(self) -> None:
        pages = self._client.get_paginator("list_processing_jobs").paginate(MaxResults=100)
        for page in pages:
            for summary in page["ProcessingJobSummaries"]:
                self._see(summary)

    def _see(self, summary: dict[str, Any]) -> None:
        name, status = summary["ProcessingJobName"], summary["ProcessingJobStatus"]
        if name in self._others:
            return
        job = self._jobs.get(name)
        if job is None:
            tags = self._client.list_tags(ResourceArn=summary["ProcessingJobArn"])["Tags"]
            run_id = next((tag["Value"] for tag in tags if tag["Key"] == "updraft:run"), None)
            if run_id is None:
                self._others.add(name)
                return
            job = self._jobs[name] = SeenJob(name, run_id, time.monotonic())
        job.status = status
        if status != "InProgress" and job.left_at is None:
            job.left_at = time.monotonic()


class Airflow(AirflowApi):
    """What a user does to a task in the UI."""

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear the task, whatever its state."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [TASK], "only_failed": False}
        self._send("POST", f"/api/v2/dags/{quote(dag_id)}/clearTaskInstances", json=body)

    def mark(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark the task `success` or `failed`."""
        path = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{TASK}"
        self._send("PATCH", path, json={"new_state": state})

    def delete(self, dag_id: str, run_id: str) -> None:
        """Mark the run failed, since Airflow deletes no running one, and delete it."""
        self._send("DELETE", self._failed_run(dag_id, run_id))

    def delete_dag(self, dag_id: str, run_id: str) -> None:
        """The same with all that Airflow knows of the DAG; its file brings it back."""
        self._failed_run(dag_id, run_id)
        self._send("DELETE", f"/api/v2/dags/{quote(dag_id)}")

    def _failed_run(self, dag_id: str, run_id: str) -> str:
        """Mark the run failed; returns its path."""
        path = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        self._send("PATCH", path, json={"state": "failed"})
        return path

    def triggerer_of(self, dag_id: str, run_id: str) -> int | None:
        """The id of the triggerer that holds the deferred task's trigger; each start of a triggerer has its own."""
        trigger = self.task_instances(dag_id, run_id)[0]["trigger"]
        return trigger["triggerer_id"] if trigger else None

    def state(self, dag_id: str, run_id: str) -> str | None:
        """The task's state."""
        return str(self.task_instances(dag_id, run_id)[0]["state"])


def service_pids(target: Target, service: str) -> list[int]:
    """The main process of each running container of a service, or of a worker family."""
    ecs = target.client("ecs")
    arns = ecs.list_tasks(cluster=target.prefix, family=f"{target.prefix}-{service}")["taskArns"]
    names = [f"ecs-{arn.rpartition('/')[2]}-airflow" for arn in arns]
    found = [processes.pid_of(local_paths(), name) for name in names]
    return [pid for pid in found if pid is not None]


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all that it started, as the loss of its host does."""
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def wait_for(condition: Callable[[], Any], *, seconds: float) -> bool:
    """Whether a condition came true within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
