"""Which SageMaker jobs have no living owner. Pure: no AWS, no database, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

LONGEST_TAG_VALUE = 256


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
        values = self.tags
        if values.get("updraft:project") != project or values.get("updraft:environment") != environment:
            return None
        dag_id, run_id, task_id = (values.get(f"updraft:{part}") for part in ("dag", "run", "task"))
        if dag_id is None or run_id is None or task_id is None:
            return None
        return Owner(dag_id, run_id, task_id, values.get("updraft:map-index", "-1"))

    @property
    def number(self) -> int:
        """Its number among the jobs of its task instance; 0 for one that wasn't numbered."""
        text = self.tags.get("updraft:job-number", "0")
        return int(text) if text.isdecimal() else 0


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


def as_tag(value: str) -> str:
    """A value in the characters and the length that a tag takes."""
    return re.sub(r"[^\w\s+=.:/@-]", "_", value)[:LONGEST_TAG_VALUE]


def message(found: Iterable[Orphan], *, dry_run: bool) -> str:
    """What was done and why, for people."""
    verb = "would be stopped (dry run)" if dry_run else "was told to stop"
    return "\n".join(
        f"{each.job.kind} job {each.job.name} {verb}: {each.reason} "
        f"({each.owner.dag_id} / {each.owner.run_id} / {each.owner.task_id} / {each.owner.map_index})"
        for each in found
    )
