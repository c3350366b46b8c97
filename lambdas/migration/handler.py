"""The two halves of the migration's custom resource: start the task, and tell whether it has ended."""

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
    """True once the task has ended well; raises when it ended otherwise, which fails the deployment."""
    if event["RequestType"] == "Delete":
        return {"IsComplete": True}
    answer = boto3.client("ecs").describe_tasks(
        cluster=event["ResourceProperties"]["Cluster"], tasks=[event["Data"]["TaskArn"]]
    )
    return {"IsComplete": logic.has_succeeded(answer)}
