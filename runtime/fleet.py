"""What a worker knows of its fleet: whether it is one too many, and whether a newer revision exists."""

from __future__ import annotations

import logging
import socket
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger(__name__)

MOST_AT_ONCE = 100


class Fleet:
    """The living tasks of one worker family; `spare` and `outdated` are as of the last look."""

    def __init__(self, *, cluster: str, family: str, least: int) -> None:
        self._cluster = cluster
        self._family = family
        self._least = least
        self._ecs: Any = None
        self.spare = False
        self.outdated = False

    def look(self) -> None:
        """Ask ECS once; when it doesn't answer, nothing changes: a worker stays rather than leaves by mistake."""
        try:
            if self._ecs is None:
                self._ecs = boto3.client("ecs", config=Config(connect_timeout=5, read_timeout=10))
            tasks = self._tasks()
            newest = self._ecs.describe_task_definition(taskDefinition=self._family)["taskDefinition"]
        except (BotoCoreError, ClientError) as error:
            log.warning("the fleet can't be seen: %s", error)
            return
        own = own_task(tasks, socket.gethostbyname(socket.getfqdn()))
        if own is None:
            return
        self.outdated = revision_of(own["taskDefinitionArn"]) < newest["revision"]
        self.spare = is_spare(own, tasks, least=self._least)

    def _tasks(self) -> list[dict[str, Any]]:
        pages = self._ecs.get_paginator("list_tasks").paginate(cluster=self._cluster, family=self._family)
        arns = [arn for page in pages for arn in page["taskArns"]]
        found: list[dict[str, Any]] = []
        for start in range(0, len(arns), MOST_AT_ONCE):
            answer = self._ecs.describe_tasks(cluster=self._cluster, tasks=arns[start : start + MOST_AT_ONCE])
            found += answer["tasks"]
        return found


def revision_of(arn: str) -> int:
    """The revision at the end of a task definition's ARN."""
    return int(arn.rpartition(":")[2])


def own_task(tasks: list[dict[str, Any]], address: str) -> dict[str, Any] | None:
    """The task whose network interface has this address."""
    for task in tasks:
        details = [detail for attachment in task.get("attachments", []) for detail in attachment["details"]]
        if {"name": "privateIPv4Address", "value": address} in details:
            return task
    return None


def is_spare(own: dict[str, Any], tasks: list[dict[str, Any]], *, least: int) -> bool:
    """Whether at least `least` older workers of the newest kind live: the oldest stay, the younger may leave."""
    older = [
        task for task in tasks if (task["createdAt"], task["taskArn"]) < (own["createdAt"], own["taskArn"])
    ]
    return len(older) >= least
