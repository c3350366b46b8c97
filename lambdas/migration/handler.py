"""The two halves of the migration's custom resource: start the task, and tell whether everything has been done."""

from __future__ import annotations

from typing import Any

import boto3

from lambdas.migration import logic


def on_event(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Start the migration task on create and update; deleting the stack leaves the schema alone."""
    if event["RequestType"] == "Delete":
        return {"PhysicalResourceId": event["PhysicalResourceId"]}
    answer = boto3.client("ecs").run_task(**logic.run_task_request(event))
    return {"PhysicalResourceId": logic.PHYSICAL_ID, "Data": {"TaskArn": logic.started_task(answer)}}


def is_complete(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """True once the schema is the image's; raises when it can't become that, which fails the deployment.

    Called again and again: every step is looked at from the first one on, and none is taken twice.
    """
    if event["RequestType"] == "Delete":
        return {"IsComplete": True}
    ecs = boto3.client("ecs")
    code = _exit_code(ecs, event, event["Data"]["TaskArn"])
    if code is None:
        return {"IsComplete": False}
    return {"IsComplete": all(_done(ecs, event, step) for step in logic.steps_after(code, event))}


def _done(ecs: Any, event: dict[str, Any], step: str | logic.Task) -> bool:
    """Take one step if it wasn't taken before, and tell whether it has ended."""
    if isinstance(step, logic.Task):
        task = logic.started_task(ecs.run_task(**logic.run_task_request(event, step)))
        code = _exit_code(ecs, event, task)
        if code:
            raise logic.MigrationFailedError(
                f"the migration's task '{step.name}' ended with {code}; its log is in the migration log group"
            )
        return code == 0
    cluster, names = event["ResourceProperties"]["Cluster"], list(event["ResourceProperties"]["Services"])
    answer = ecs.describe_services(cluster=cluster, services=names)
    scale = logic.to_stop(answer) if step == "stop" else logic.to_start(answer, event)
    for name, count in scale.counts.items():
        ecs.update_service(cluster=cluster, service=name, desiredCount=count)
    return step == "start" or scale.drained


def _exit_code(ecs: Any, event: dict[str, Any], task: str) -> int | None:
    cluster = event["ResourceProperties"]["Cluster"]
    return logic.exit_code(ecs.describe_tasks(cluster=cluster, tasks=[task]))
