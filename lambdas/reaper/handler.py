"""Invoked on a schedule: ends what this environment pays for on SageMaker and no task instance waits for any more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.reaper import actions, logic
from lambdas.reaper.actions import KINDS, Action
from lambdas.reaper.logic import Endpoint, Job, Owner
from lambdas.shared.database import Database, read_only

# Every state from which a task instance goes on with the job that it has.
LIVING_SQL = """
SELECT dag_id, run_id, task_id, map_index FROM task_instance
WHERE state IN ('running', 'deferred', 'scheduled', 'queued', 'restarting', 'up_for_retry', 'up_for_reschedule')
"""

# SageMaker's lists are throttled account-wide; retries back off with jitter.
RETRIES = Config(retries={"mode": "standard", "total_max_attempts": 8})


@dataclass(frozen=True)
class Settings:
    """The function's environment; `notebook_hours` is 0 where there is no notebook instance."""

    project: str
    environment: str
    topic_arn: str
    grace: timedelta
    notebook_hours: int
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
            notebook_hours=int(value["UPDRAFT_NOTEBOOK_HOURS"]),
            dry_run=value["UPDRAFT_DRY_RUN"] == "true",
        )

    @property
    def prefix(self) -> str:
        """How the names of this environment's resources begin."""
        return f"{self.project}-{self.environment}-"

    def owner(self, tags: Any) -> Owner | None:
        """The task instance of this environment that tags name."""
        return logic.owner_of(tags, project=self.project, environment=self.environment)


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """End every orphan and tell it; `{"dry_run": true}` as the event only tells.

    Raises when Airflow's database can't be read: nothing that may have an owner is ended then, and the function's
    alarm goes off. What SageMaker refuses to end doesn't keep the rest from its end, and is raised after it.
    """
    settings = Settings.read()
    dry_run = settings.dry_run or bool(event.get("dry_run"))
    sagemaker = boto3.client("sagemaker", config=RETRIES)
    told: list[Action] = []
    refused: list[Exception] = []

    def end(found: Iterable[Action]) -> None:
        for each in found:
            if dry_run:
                told.append(each)
                continue
            try:
                if each.take(sagemaker):
                    told.append(each)
                    each.finish(sagemaker)
            except (BotoCoreError, ClientError) as error:
                error.add_note(f"{each.operation} {each.name}")
                refused.append(error)

    end(overdue_notebooks(sagemaker, settings))
    try:
        running = list(running_jobs(sagemaker, settings.prefix))
        pools = list(warm_pools(sagemaker, settings.prefix))
        unfinished = [each for each in endpoints(sagemaker, settings.prefix) if each.way_out is not None]
        # A database that sleeps while nothing runs is nobody's trouble.
        if running or pools or unfinished:
            end(orphans(sagemaker, settings, running, pools, unfinished))
    finally:
        if told:
            _tell(settings, actions.message(told, dry_run=dry_run), len(told))
    if refused:
        raise ExceptionGroup(f"SageMaker did not end {len(refused)} of the resources", refused)
    return {"running": len(running), "stopped": [each.name for each in told], "dry_run": dry_run}


def orphans(
    sagemaker: Any,
    settings: Settings,
    running: list[Job],
    pools: list[Job],
    unfinished: list[Endpoint],
) -> Iterator[Action]:
    """What to do with all that has no living owner."""
    # These come after what was listed: an owner that is missing now has gone, and is not on its way.
    living = living_owners()
    rule: dict[str, Any] = {"project": settings.project, "environment": settings.environment}
    times: dict[str, Any] = {"now": datetime.now(UTC), "grace": settings.grace}
    for orphan in logic.orphans(running, living, **rule, **times):
        yield actions.stop(orphan)
    for pool in logic.idle_pools(pools, living, **rule, **times):
        if (owner := settings.owner(pool.tags)) is not None:
            yield actions.end_pool(pool, owner)
    for endpoint in logic.suspects(unfinished, living, **rule, **times):
        again, owner = read_endpoint(sagemaker, endpoint.name), settings.owner(endpoint.tags)
        if owner is not None and logic.is_abandoned(endpoint, again, **rule):
            yield actions.undo(endpoint, owner)


def running_jobs(sagemaker: Any, prefix: str) -> Iterator[Job]:
    """Every running job whose name begins as this environment's do."""
    for kind in KINDS:
        yield from jobs(sagemaker, kind, prefix, StatusEquals="InProgress")


def warm_pools(sagemaker: Any, prefix: str) -> Iterator[Job]:
    """Every training of this environment whose instances wait for another job."""
    yield from jobs(sagemaker, "training", prefix, WarmPoolStatusEquals="Available")


def jobs(sagemaker: Any, kind: str, prefix: str, **filters: str) -> Iterator[Job]:
    """Jobs of one kind whose name begins as this environment's do, with their tags."""
    noun, words = KINDS[kind]
    for page in sagemaker.get_paginator(f"list_{noun}s").paginate(NameContains=prefix, **filters):
        for summary in page[f"{words}Summaries"]:
            name, arn = summary[f"{words}Name"], summary[f"{words}Arn"]
            if name.startswith(prefix):
                yield Job(kind, name, arn, summary["CreationTime"], all_tags(sagemaker, arn))


def endpoints(sagemaker: Any, prefix: str) -> Iterator[Endpoint]:
    """Every endpoint whose name begins as this environment's do."""
    for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=prefix):
        for summary in page["Endpoints"]:
            name = summary["EndpointName"]
            if name.startswith(prefix) and (found := read_endpoint(sagemaker, name)) is not None:
                yield found


def read_endpoint(sagemaker: Any, name: str) -> Endpoint | None:
    """An endpoint as it is now; None when it is gone."""
    try:
        found = sagemaker.describe_endpoint(EndpointName=name)
        tags = all_tags(sagemaker, found["EndpointArn"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in actions.REFUSALS:
            raise
        return None
    return Endpoint(
        name=name,
        arn=found["EndpointArn"],
        status=found["EndpointStatus"],
        config=found["EndpointConfigName"],
        changed_at=found["LastModifiedTime"],
        tags=tags,
    )


def overdue_notebooks(sagemaker: Any, settings: Settings) -> Iterator[Action]:
    """Notebook instances of this environment that have been running for longer than they may."""
    if settings.notebook_hours == 0:
        return
    oldest = datetime.now(UTC) - timedelta(hours=settings.notebook_hours)
    pages = sagemaker.get_paginator("list_notebook_instances").paginate(
        StatusEquals="InService", NameContains=settings.prefix
    )
    wanted = {"updraft:project": settings.project, "updraft:environment": settings.environment}.items()
    for page in pages:
        for each in page["NotebookInstances"]:
            name, arn = each["NotebookInstanceName"], each["NotebookInstanceArn"]
            # A start is the last change of an instance that runs.
            if not name.startswith(settings.prefix) or each["LastModifiedTime"] > oldest:
                continue
            if wanted <= all_tags(sagemaker, arn).items():
                yield actions.stop_notebook(name, arn, settings.notebook_hours)


def all_tags(sagemaker: Any, arn: str) -> dict[str, str]:
    """The tags of one resource, from every page."""
    pages = sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def living_owners() -> set[Owner]:
    """The task instances that wait for a job or will take one over."""
    with read_only(Database.read(), boto3.client("rds")) as database:
        return {Owner.of_task(*row) for row in database.run(LIVING_SQL)}


def _tell(settings: Settings, text: str, count: int) -> None:
    print(text)
    boto3.client("sns").publish(
        TopicArn=settings.topic_arn,
        Subject=f"{settings.prefix[:-1]}: {count} resources on SageMaker without an owner",
        Message=text,
    )
