"""What to ask of ECS for a migration, and how to read its answers. No AWS calls here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

PHYSICAL_ID = "database-migration"
CONTAINER = "airflow"
# The reason that DescribeTasks gives for a task which it does not know.
MISSING = "MISSING"
MIGRATE = ("python", "-m", "runtime.migrate")
# What runtime.migrate ends with when it has changed nothing; a test holds both sides together.
EXIT_SERVICES_MUST_STOP = 3
EXIT_SCHEMA_IS_NEWER = 4


class MigrationFailedError(Exception):
    """The migration task could not be started, or did not end with exit code 0."""


@dataclass(frozen=True)
class Scale:
    """Services whose desired count has to change, and whether to wait until none of their tasks is left."""

    counts: dict[str, int]
    drained: bool


@dataclass(frozen=True)
class Task:
    """A further task of the same request: its name in it, the task definition, and the command."""

    name: str
    definition: str
    command: tuple[str, ...]


def steps_after(code: int, event: dict[str, Any]) -> tuple[str | Task, ...]:
    """What follows the first task's end: `stop` or `start` the services, or a task; each is safe to repeat.

    Raises MigrationFailedError for an end that nothing can follow.
    """
    new = event["ResourceProperties"]
    migrate = Task("migrate", new["TaskDefinition"], (*MIGRATE, "--services-stopped"))
    if code == 0:
        # A deployment that failed before this one, which is its rollback, may have left the services stopped.
        return ("start",)
    if code == EXIT_SERVICES_MUST_STOP:
        return ("stop", migrate, "start")
    if code != EXIT_SCHEMA_IS_NEWER:
        raise MigrationFailedError(
            f"the migration task ended with {code}; its log is in the migration log group"
        )
    newer = event.get("OldResourceProperties", {}).get("TaskDefinition")
    if newer is None:
        raise MigrationFailedError(
            "the database's schema belongs to a newer Airflow than the image, and no newer image was deployed "
            "here that could take it back; nothing was changed (docs/upgrade.md)"
        )
    back = Task("downgrade", newer, (*MIGRATE, "--back-to", *new["Packages"]))
    return ("stop", back, migrate, "start")


def run_task_request(event: dict[str, Any], task: Task | None = None) -> dict[str, Any]:
    """The RunTask request; its client token makes a repeated event, or a repeated step, start no second task."""
    properties = event["ResourceProperties"]
    token = event["RequestId"] + (task.name if task else "")
    request = {
        "cluster": properties["Cluster"],
        "taskDefinition": task.definition if task else properties["TaskDefinition"],
        "launchType": "FARGATE",
        "count": 1,
        "startedBy": "database-migration",
        "clientToken": hashlib.sha256(token.encode()).hexdigest()[:32],
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": properties["Subnets"],
                "securityGroups": properties["SecurityGroups"],
                "assignPublicIp": properties["AssignPublicIp"],
            }
        },
    }
    if task:
        command = {"name": CONTAINER, "command": list(task.command)}
        request["overrides"] = {"containerOverrides": [command]}
    return request


def started_task(answer: dict[str, Any]) -> str:
    """The ARN of the started task; raises MigrationFailedError with ECS's reasons when there is none."""
    if not answer.get("tasks"):
        reasons = ", ".join(failure.get("reason", "unknown") for failure in answer.get("failures", []))
        raise MigrationFailedError(f"ECS did not start the migration task: {reasons or 'no reason given'}")
    return str(answer["tasks"][0]["taskArn"])


def exit_code(answer: dict[str, Any]) -> int | None:
    """None while the task goes on, then its exit code; raises MigrationFailedError when there is none."""
    if not answer.get("tasks"):
        reasons = [failure.get("reason", "unknown") for failure in answer.get("failures", [])]
        if reasons == [MISSING]:
            # ECS may not know a task yet that it has just started; the migration's time limit ends a longer wait.
            return None
        raise MigrationFailedError(f"the migration task is gone: {', '.join(reasons) or 'no reason given'}")
    task = answer["tasks"][0]
    if task["lastStatus"] != "STOPPED":
        return None
    code = {container["name"]: container.get("exitCode") for container in task["containers"]}.get(CONTAINER)
    if code is None:
        reason = task.get("stoppedReason", "no reason given")
        raise MigrationFailedError(
            f"the migration task ended without an exit code ({reason}); its log is in the migration log group"
        )
    return int(code)


def to_stop(answer: dict[str, Any]) -> Scale:
    """Which of the described services are to be set to 0, and whether all their tasks are gone."""
    services = _active(answer)
    return Scale(
        counts={service["serviceName"]: 0 for service in services if service["desiredCount"]},
        drained=not any(service["runningCount"] + service["pendingCount"] for service in services),
    )


def to_start(answer: dict[str, Any], event: dict[str, Any]) -> Scale:
    """Which of the described services stand at 0 and get their number back."""
    wanted = event["ResourceProperties"]["Services"]
    counts = {
        service["serviceName"]: int(wanted[service["serviceName"]])
        for service in _active(answer)
        if not service["desiredCount"]
    }
    return Scale(counts={name: count for name, count in counts.items() if count}, drained=False)


def _active(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [service for service in answer["services"] if service["status"] == "ACTIVE"]
