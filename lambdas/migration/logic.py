"""What to ask of ECS for a migration, and how to read its answers. No AWS calls here."""

from __future__ import annotations

import hashlib
from typing import Any

PHYSICAL_ID = "database-migration"


class MigrationFailedError(Exception):
    """The migration task could not be started, or did not end with exit code 0."""


def run_task_request(event: dict[str, Any]) -> dict[str, Any]:
    """The RunTask request; its client token makes a repeated event start no second task."""
    properties = event["ResourceProperties"]
    return {
        "cluster": properties["Cluster"],
        "taskDefinition": properties["TaskDefinition"],
        "launchType": "FARGATE",
        "count": 1,
        "startedBy": "database-migration",
        "clientToken": hashlib.sha256(event["RequestId"].encode()).hexdigest()[:32],
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": properties["Subnets"],
                "securityGroups": properties["SecurityGroups"],
                "assignPublicIp": properties["AssignPublicIp"],
            }
        },
    }


def started_task(answer: dict[str, Any]) -> str:
    """The ARN of the started task; raises MigrationFailedError with ECS's reasons when there is none."""
    if not answer.get("tasks"):
        reasons = ", ".join(failure.get("reason", "unknown") for failure in answer.get("failures", []))
        raise MigrationFailedError(f"ECS did not start the migration task: {reasons or 'no reason given'}")
    return str(answer["tasks"][0]["taskArn"])


def has_succeeded(answer: dict[str, Any]) -> bool:
    """False while the task goes on, True when it ended with 0; raises MigrationFailedError otherwise."""
    if not answer.get("tasks"):
        reasons = ", ".join(failure.get("reason", "unknown") for failure in answer.get("failures", []))
        raise MigrationFailedError(f"the migration task is gone: {reasons or 'no reason given'}")
    task = answer["tasks"][0]
    if task["lastStatus"] != "STOPPED":
        return False
    codes = [container.get("exitCode") for container in task["containers"]]
    if codes != [0] * len(codes):
        reason = task.get("stoppedReason", "no reason given")
        raise MigrationFailedError(
            f"the migration task ended with {codes} ({reason}); its log is in the migration log group"
        )
    return True
