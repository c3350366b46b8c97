"""Invoked every minute: samples the load of every queue each ten seconds, publishes it, starts missing workers."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3

from lambdas.load_metric.logic import Load, Queue, metric_data, missing_workers
from lambdas.shared.database import Database, read_only

SAMPLE_SECONDS = 10
# The last sample starts early enough to end before the next minute's invocation.
LAST_SAMPLE_MARGIN_MILLISECONDS = 12_000
# One sampler at a time: its number is arbitrary, and only this function uses it.
ADVISORY_LOCK = 7_310_211
MOST_TASKS_AT_ONCE = 10
SAMPLE_SQL = """
SELECT queue, count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state IN ('running', 'restarting'))
FROM task_instance WHERE state IN ('queued', 'running', 'restarting') GROUP BY queue
"""


@dataclass(frozen=True)
class Settings:
    """The function's environment."""

    project: str
    environment: str
    cluster: str
    database: Database
    queues: list[Queue]
    network: dict[str, Any]

    @classmethod
    def read(cls) -> Settings:
        """From the environment variables that the scaling stack sets."""
        value = os.environ
        return cls(
            project=value["UPDRAFT_PROJECT"],
            environment=value["UPDRAFT_ENVIRONMENT"],
            cluster=value["UPDRAFT_CLUSTER"],
            database=Database.read(),
            queues=[Queue(**queue) for queue in json.loads(value["UPDRAFT_QUEUES"])],
            network={
                "awsvpcConfiguration": {
                    "subnets": value["UPDRAFT_SUBNET_IDS"].split(","),
                    "securityGroups": value["UPDRAFT_SECURITY_GROUP_IDS"].split(","),
                    "assignPublicIp": value["UPDRAFT_ASSIGN_PUBLIC_IP"],
                }
            },
        )


def handler(_event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Sample until the time is nearly up; returns the number of samples and of workers started."""
    settings = Settings.read()
    clients = {name: boto3.client(name) for name in ("ecs", "cloudwatch", "rds")}
    samples = started = 0
    with locked_database(settings, clients["rds"]) as database:
        if database is None:
            return {"samples": 0, "started": 0, "reason": "another invocation is sampling"}
        while True:
            begun = time.monotonic()
            started += sample(settings, clients, database)
            samples += 1
            if context.get_remaining_time_in_millis() < LAST_SAMPLE_MARGIN_MILLISECONDS:
                return {"samples": samples, "started": started}
            time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun)))


@contextmanager
def locked_database(settings: Settings, rds: Any) -> Iterator[Any]:
    """A read-only connection by an IAM token over verified TLS; None when another invocation holds the lock."""
    with read_only(settings.database, rds) as connection:
        [[locked]] = connection.run("SELECT pg_try_advisory_lock(:number)", number=ADVISORY_LOCK)
        yield connection if locked else None


def sample(settings: Settings, clients: dict[str, Any], database: Any) -> int:
    """Measure every queue, publish, and start what is missing; returns the number of workers started."""
    counts = {queue: (queued, running) for queue, queued, running in database.run(SAMPLE_SQL)}
    started = 0
    for queue in settings.queues:
        queued, running = counts.get(queue.queue, (0, 0))
        load = Load(
            queued=queued, running=running, workers=live_workers(clients["ecs"], settings.cluster, queue)
        )
        clients["cloudwatch"].put_metric_data(
            Namespace=settings.project, MetricData=metric_data(settings.environment, queue, load)
        )
        started += start_workers(clients["ecs"], settings, queue, missing_workers(queue, load))
    return started


def live_workers(ecs: Any, cluster: str, queue: Queue) -> int:
    """Workers that run or are being started."""
    pages = ecs.get_paginator("list_tasks").paginate(
        cluster=cluster, family=queue.task_definition, desiredStatus="RUNNING"
    )
    return sum(len(page["taskArns"]) for page in pages)


def start_workers(ecs: Any, settings: Settings, queue: Queue, count: int) -> int:
    """RunTask with the newest revision, in calls of at most ten; raises when ECS starts fewer than asked."""
    moment = int(time.time() // SAMPLE_SECONDS)
    for number, first in enumerate(range(0, count, MOST_TASKS_AT_ONCE)):
        # The same sample repeated, as after a lost answer, starts nothing twice.
        seed = f"{settings.cluster}/{queue.queue}/{moment}/{number}"
        answer = ecs.run_task(
            cluster=settings.cluster,
            taskDefinition=queue.task_definition,
            count=min(MOST_TASKS_AT_ONCE, count - first),
            startedBy="load-metric",
            clientToken=hashlib.sha256(seed.encode()).hexdigest()[:32],
            capacityProviderStrategy=[{"capacityProvider": queue.capacity_provider, "weight": 1}],
            networkConfiguration=settings.network,
        )
        if answer.get("failures"):
            reasons = ", ".join(failure.get("reason", "unknown") for failure in answer["failures"])
            raise RuntimeError(f"queue {queue.queue}: ECS did not start all workers: {reasons}")
    return count
