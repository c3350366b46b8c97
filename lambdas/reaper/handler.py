"""Invoked on a schedule: stops SageMaker jobs of this environment that no task instance waits for any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import ClientError

from lambdas.reaper.logic import Job, Orphan, Owner, message, orphans
from lambdas.shared.database import Database, read_only

# kind: (the word in the API's operations, the words in its answers); tuning first, since it stops its trainings.
KINDS = {
    "tuning": ("hyper_parameter_tuning_job", "HyperParameterTuningJob"),
    "training": ("training_job", "TrainingJob"),
    "processing": ("processing_job", "ProcessingJob"),
    "transform": ("transform_job", "TransformJob"),
}
# Every state from which a task instance goes on with the job that it has.
LIVING_SQL = """
SELECT dag_id, run_id, task_id, map_index FROM task_instance
WHERE state IN ('running', 'deferred', 'scheduled', 'queued', 'restarting', 'up_for_retry', 'up_for_reschedule')
"""


@dataclass(frozen=True)
class Settings:
    """The function's environment."""

    project: str
    environment: str
    topic_arn: str
    grace: timedelta
    dry_run: bool

    @classmethod
    def read(cls) -> Settings:
        """From the environment variables that the workflows stack sets."""
        value = os.environ
        return cls(
            project=value["UPDRAFT_PROJECT"],
            environment=value["UPDRAFT_ENVIRONMENT"],
            topic_arn=value["UPDRAFT_TOPIC_ARN"],
            grace=timedelta(seconds=int(value["UPDRAFT_GRACE_SECONDS"])),
            dry_run=value["UPDRAFT_DRY_RUN"] == "true",
        )


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Stop every orphan and tell it; `{"dry_run": true}` as the event only tells.

    Raises when Airflow's database can't be read: nothing is stopped then, and the function's alarm goes off.
    """
    settings = Settings.read()
    dry_run = settings.dry_run or bool(event.get("dry_run"))
    sagemaker = boto3.client("sagemaker")
    running = list(running_jobs(sagemaker, f"{settings.project}-{settings.environment}-"))
    if not running:
        # A database that sleeps while nothing runs is nobody's trouble.
        return {"running": 0, "stopped": [], "dry_run": dry_run}
    # The jobs first: a job that is listed had its owner before, so an owner that is missing now has gone.
    found = orphans(
        running,
        living_owners(),
        project=settings.project,
        environment=settings.environment,
        now=datetime.now(UTC),
        grace=settings.grace,
    )
    told = found if dry_run else [orphan for orphan in found if stop(sagemaker, orphan)]
    if told:
        text = message(told, dry_run=dry_run)
        print(text)
        boto3.client("sns").publish(
            TopicArn=settings.topic_arn,
            Subject=f"{settings.project}-{settings.environment}: {len(told)} SageMaker jobs without an owner",
            Message=text,
        )
    return {"running": len(running), "stopped": [orphan.job.name for orphan in told], "dry_run": dry_run}


def running_jobs(sagemaker: Any, prefix: str) -> Iterator[Job]:
    """Every running job whose name begins as this environment's do."""
    for kind, (noun, words) in KINDS.items():
        pages = sagemaker.get_paginator(f"list_{noun}s").paginate(
            StatusEquals="InProgress", NameContains=prefix
        )
        for page in pages:
            for summary in page[f"{words}Summaries"]:
                name, arn = summary[f"{words}Name"], summary[f"{words}Arn"]
                if name.startswith(prefix):
                    tags = {tag["Key"]: tag["Value"] for tag in all_tags(sagemaker, arn)}
                    yield Job(kind, name, arn, summary["CreationTime"], tags)


def all_tags(sagemaker: Any, arn: str) -> Iterator[dict[str, str]]:
    """The tags of one job, page by page."""
    for page in sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn):
        yield from page["Tags"]


def living_owners() -> set[Owner]:
    """The task instances that wait for a job or will take one over."""
    with read_only(Database.read(), boto3.client("rds")) as database:
        return {Owner.of_task(*row) for row in database.run(LIVING_SQL)}


def stop(sagemaker: Any, orphan: Orphan) -> bool:
    """Ask for the stop and say on the job why; False when it has ended by itself in between."""
    noun, words = KINDS[orphan.job.kind]
    try:
        getattr(sagemaker, f"stop_{noun}")(**{f"{words}Name": orphan.job.name})
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
            raise
        return False
    tags = {"updraft:stopped-by": "reaper", "updraft:stop-reason": orphan.reason}
    sagemaker.add_tags(
        ResourceArn=orphan.job.arn, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
    )
    return True
