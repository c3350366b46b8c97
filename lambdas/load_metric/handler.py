"""Invoked every minute: samples the load of every queue each ten seconds, starts missing workers, says who stays.

A sample that fails changes nothing; the invocation goes on sampling and fails at its end, which raises the alarm.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import boto3

from lambdas.load_metric import fleet
from lambdas.load_metric.fleet import FleetRecord, Network
from lambdas.load_metric.logic import SAMPLE_SECONDS, Decision, Load, Queue, Worker, decide
from lambdas.load_metric.observation import DatabaseView, live_workers
from lambdas.shared.database import Database, read_only

# A sample that would start with less time left might be cut off in its middle.
LEAST_MILLISECONDS_FOR_A_SAMPLE = 8_000
# One sampler at a time: its number is arbitrary, and only this function uses it.
ADVISORY_LOCK = 7_310_211
AWAKE = "awake"


@dataclass(frozen=True)
class Settings:
    """The function's environment."""

    project: str
    environment: str
    cluster: str
    ssm_prefix: str
    database: Database
    queues: list[Queue]
    network: Network
    execute_command: bool = False

    @classmethod
    def read(cls) -> Settings:
        """From the environment variables that the scaling stack sets."""
        value = os.environ
        return cls(
            project=value["UPDRAFT_PROJECT"],
            environment=value["UPDRAFT_ENVIRONMENT"],
            cluster=value["UPDRAFT_CLUSTER"],
            ssm_prefix=value["UPDRAFT_SSM_PREFIX"],
            database=Database.read(),
            queues=[Queue(**queue) for queue in json.loads(value["UPDRAFT_QUEUES"])],
            network=Network(
                subnets=value["UPDRAFT_SUBNET_IDS"].split(","),
                security_groups=value["UPDRAFT_SECURITY_GROUP_IDS"].split(","),
                assign_public_ip=value["UPDRAFT_ASSIGN_PUBLIC_IP"],
            ),
            execute_command=value["UPDRAFT_EXECUTE_COMMAND"] == "true",
        )


class Sampler:
    """One invocation: its clients, what it counted, and the metrics that it publishes at its end."""

    def __init__(self, settings: Settings, clients: dict[str, Any]) -> None:
        self.settings = settings
        self.clients = clients
        self.samples = self.started = 0
        self.failures: list[str] = []
        self._view = DatabaseView()
        self._launcher = fleet.Launcher(
            clients["ecs"], settings.cluster, settings.network, execute_command=settings.execute_command
        )
        self._records = {
            queue.queue: FleetRecord(clients["ssm"], f"{settings.ssm_prefix}/workers/{queue.queue}")
            for queue in settings.queues
        }
        self._metrics: list[dict[str, Any]] = []

    def is_awake(self) -> bool:
        """Whether the environment takes work; it does when nothing says otherwise."""
        ssm = self.clients["ssm"]
        try:
            answer = ssm.get_parameter(Name=f"{self.settings.ssm_prefix}/sleep/state")
        except ssm.exceptions.ParameterNotFound:
            return True
        return str(answer["Parameter"]["Value"]) == AWAKE

    def close(self) -> None:
        """Tell every worker to stop consuming, for the environment goes to sleep. The database isn't needed."""
        for record in self._records.values():
            record.write(keep=(), closing=(), take_work=False, now=time.time())

    def sample(self, database: Any) -> None:
        """Look at everything, decide, then act on each queue; one queue's trouble is its own.

        Raises when something could not be read: then nothing has been changed.
        """
        longest = max(queue.horizon_seconds for queue in self.settings.queues)
        seen = self._view.look(database, horizon_seconds=longest)
        fleets = {
            queue.queue: live_workers(
                self.clients["ecs"],
                self.settings.cluster,
                queue.task_definition,
                self._launcher.recent(queue, time.time()),
            )
            for queue in self.settings.queues
        }
        now = time.time()
        self.samples += 1
        for queue in self.settings.queues:
            load, workers, record = seen.load(queue), fleets[queue.queue], self._records[queue.queue]
            try:
                decision = decide(queue, load, workers, record.keep)
                self._tell(queue, load, workers, decision, now)
                record.write(keep=decision.keep, closing=decision.closing, take_work=True, now=now)
                self.started += self._launcher.start(queue, decision, now)
            except Exception as error:
                print(json.dumps({"failed_sample": str(error), "queue": queue.queue}))
                self.failures.append(f"queue {queue.queue}: {error}")

    def _tell(self, queue: Queue, load: Load, workers: list[Worker], decision: Decision, now: float) -> None:
        """One structured log line, which `scale explain` reads, and the metrics."""
        values = {
            "QueuedTasks": load.queued,
            "RunningTasks": sum(load.running.values()),
            "ExpectedTasks": load.expected,
            "LiveWorkers": len(workers),
            "StartingWorkers": sum(worker.starting for worker in workers),
            "Slots": queue.slots
            * sum(worker.current and not worker.starting and not worker.sick for worker in workers),
            "WantedWorkers": decision.wanted,
        }
        print(json.dumps({"sample": {"at": now, "queue": queue.queue, "metrics": values} | asdict(decision)}))
        dimensions = [
            {"Name": "environment", "Value": self.settings.environment},
            {"Name": "queue", "Value": queue.queue},
        ]
        self._metrics += [
            {
                "MetricName": name,
                "Dimensions": dimensions,
                "Timestamp": datetime.fromtimestamp(now, UTC),
                "Value": value,
                "Unit": "Count",
                "StorageResolution": 1,
            }
            for name, value in values.items()
        ]

    def publish(self) -> None:
        """Send the samples as high-resolution metrics: in one call a minute, since each call is billed."""
        if self._metrics:
            self.clients["cloudwatch"].put_metric_data(
                Namespace=self.settings.project, MetricData=self._metrics
            )


def handler(_event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Sample until the time is nearly up; returns the number of samples and of workers started.

    Raises RuntimeError at the end with everything that failed.
    """
    settings = Settings.read()
    clients = {name: boto3.client(name) for name in ("ecs", "cloudwatch", "rds", "ssm")}
    sampler = Sampler(settings, clients)
    if not sampler.is_awake():
        sampler.close()
        return {"samples": 0, "started": 0, "reason": "the environment sleeps"}
    try:
        reason = run(sampler, context)
    finally:
        sampler.publish()
    if sampler.failures:
        raise RuntimeError("; ".join(dict.fromkeys(sampler.failures)))
    return {"samples": sampler.samples, "started": sampler.started, "reason": reason}


def run(sampler: Sampler, context: Any) -> str:
    """Sample every ten seconds, joining the database again after a failure, until the time is up."""
    while True:
        begun = time.monotonic()
        try:
            with locked_database(sampler.settings, sampler.clients["rds"]) as database:
                if database is None:
                    return "another invocation is sampling"
                while True:
                    begun = time.monotonic()
                    sampler.sample(database)
                    if not _wait_for_next(context, begun):
                        return "the minute is over"
        except Exception as error:
            print(json.dumps({"failed_sample": f"{type(error).__name__}: {error}"}))
            sampler.failures.append(f"{type(error).__name__}: {error}")
        if not _wait_for_next(context, begun):
            return "the minute is over"


def _wait_for_next(context: Any, begun: float) -> bool:
    """Sleep until ten seconds after the sample's begin; False when the next one would not end in time."""
    pause = max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun))
    if context.get_remaining_time_in_millis() - pause * 1000 < LEAST_MILLISECONDS_FOR_A_SAMPLE:
        return False
    time.sleep(pause)
    return True


@contextmanager
def locked_database(settings: Settings, rds: Any) -> Iterator[Any]:
    """The database with the sampler's lock; None when another invocation holds it."""
    with read_only(settings.database, rds) as connection:
        [[locked]] = connection.run("SELECT pg_try_advisory_lock(:number)", number=ADVISORY_LOCK)
        yield connection if locked else None
