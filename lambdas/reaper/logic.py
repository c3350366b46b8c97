"""Which SageMaker jobs, endpoints and warm pools have no living owner. Pure: no AWS, no database, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

LONGEST_TAG_VALUE = 256
# Written by the operator when a deployment is complete: the configuration that serves from then on.
SERVES = "updraft:serves"
# Statuses in which SageMaker lets an endpoint be changed, or at least deleted.
RESTING = ("InService", "Failed", "OutOfService")


class Owner(NamedTuple):
    """A task instance as tags can say it: their characters and length are limited."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: str

    @classmethod
    def of_task(cls, dag_id: str, run_id: str, task_id: str, map_index: int) -> Owner:
        """The owner as the operators write it on their jobs."""
        return cls(*(as_tag(str(part)) for part in (dag_id, run_id, task_id, map_index)))


@dataclass(frozen=True)
class Job:
    """One job that SageMaker runs now; `created_at` is aware."""

    kind: str
    name: str
    arn: str
    created_at: datetime
    tags: Mapping[str, str]

    def owner(self, *, project: str, environment: str) -> Owner | None:
        """The task instance that its tags name; None when this environment's operators did not make it."""
        return owner_of(self.tags, project=project, environment=environment)

    @property
    def number(self) -> int:
        """Its number among the jobs of its task instance; 0 for one that wasn't numbered."""
        text = self.tags.get("updraft:job-number", "0")
        return int(text) if text.isdecimal() else 0


@dataclass(frozen=True)
class Endpoint:
    """One endpoint as it is now; `changed_at` is aware."""

    name: str
    arn: str
    status: str
    config: str
    changed_at: datetime
    tags: Mapping[str, str]

    @property
    def way_out(self) -> str | None:
        """What is to be done with it when its task is gone: `delete`, `roll back`, or None for nothing."""
        serves = self.tags.get(SERVES)
        if self.status not in RESTING:
            return None  # SageMaker refuses any change; it rests in a while
        if serves is None:
            return "delete"
        return "roll back" if self.status == "InService" and self.config != serves else None


@dataclass(frozen=True)
class Orphan:
    """A job to stop, and why."""

    job: Job
    owner: Owner
    reason: str


def orphans(
    jobs: Iterable[Job],
    living: set[Owner],
    *,
    project: str,
    environment: str,
    now: datetime,
    grace: timedelta,
) -> list[Orphan]:
    """Jobs past their grace time whose task instance is gone or has started a later one, oldest first.

    `living` are the task instances that wait for a job or will take one over: read them after the jobs.
    """
    owned = [
        (job, owner)
        for job in jobs
        if (owner := job.owner(project=project, environment=environment)) is not None
    ]
    newest: dict[tuple[Owner, str], int] = {}
    for job, owner in owned:
        newest[owner, job.kind] = max(job.number, newest.get((owner, job.kind), 0))
    found = []
    for job, owner in owned:
        if now - job.created_at < grace:
            continue
        if owner not in living:
            found.append(Orphan(job, owner, "its task instance no longer waits for it"))
        elif job.number < newest[owner, job.kind]:
            found.append(Orphan(job, owner, "its task instance has started a later job"))
    return sorted(found, key=lambda orphan: orphan.job.created_at)


def suspects(
    endpoints: Iterable[Endpoint],
    living: set[Owner],
    *,
    project: str,
    environment: str,
    now: datetime,
    grace: timedelta,
) -> list[Endpoint]:
    """Endpoints past their grace time that differ from their last complete deployment, and whose task is gone."""
    return [
        endpoint
        for endpoint in endpoints
        if endpoint.way_out is not None
        and (owner := owner_of(endpoint.tags, project=project, environment=environment)) is not None
        and owner not in living
        and now - endpoint.changed_at >= grace
    ]


def is_abandoned(before: Endpoint, after: Endpoint | None, *, project: str, environment: str) -> bool:
    """Whether a suspect is still one when it is read again.

    A task notes its complete deployment before it ends, and its name before it begins one: what was read before the
    living task instances may miss the one, and what is read after them the other.
    """
    if after is None or after.way_out != before.way_out or after.changed_at != before.changed_at:
        return False
    owners = {owner_of(each.tags, project=project, environment=environment) for each in (before, after)}
    return len(owners) == 1


def idle_pools(
    pools: Iterable[Job],
    living: set[Owner],
    *,
    project: str,
    environment: str,
    now: datetime,
    grace: timedelta,
) -> list[Job]:
    """Trainings past their grace time whose warm pool waits for a job of a DAG run in which nothing lives any more."""
    runs = {(owner.dag_id, owner.run_id) for owner in living}
    return [
        pool
        for pool in pools
        if (owner := pool.owner(project=project, environment=environment)) is not None
        and (owner.dag_id, owner.run_id) not in runs
        and now - pool.created_at >= grace
    ]


def owner_of(tags: Mapping[str, str], *, project: str, environment: str) -> Owner | None:
    """The task instance that tags name; None when this environment's operators did not write them."""
    if tags.get("updraft:project") != project or tags.get("updraft:environment") != environment:
        return None
    dag_id, run_id, task_id = (tags.get(f"updraft:{part}") for part in ("dag", "run", "task"))
    if dag_id is None or run_id is None or task_id is None:
        return None
    return Owner(dag_id, run_id, task_id, tags.get("updraft:map-index", "-1"))


def as_tag(value: str) -> str:
    """A value in the characters and the length that a tag takes."""
    return re.sub(r"[^\w\s+=.:/@-]", "_", value)[:LONGEST_TAG_VALUE]
