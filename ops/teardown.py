"""Ends and empties what CloudFormation refuses to delete while something runs or lies in it."""

from __future__ import annotations

import time
from typing import Any

from ops.console import OperatorError
from ops.target import Target

BUCKETS = ("LogsBucket", "BundlesBucket", "DataBucket")
# What is written there belongs to no stack (stacks/constructs/parameters.py).
PARAMETERS = ("bundle/pointer", "sleep/state", "sleep/wanted", "sleep/memory")
MOST_AT_ONCE = 1000
MOST_SERVICES_AT_ONCE = 10
MOST_TASKS_AT_ONCE = 100
# A task has two minutes from the signal on, then it is killed; what EC2 and the network need comes on top.
DRAIN_SECONDS = 300
POLL_SECONDS = 1


def empty(target: Target) -> None:
    """Delete every object version and model package of an environment that doesn't keep its data."""
    storage = target.outputs_found.get("storage", {})
    for output in BUCKETS:
        if output in storage:
            _empty_bucket(target, storage[output])
    for stack in ("workflows", "pets"):
        group = target.outputs_found.get(stack, {}).get("ModelPackageGroupName")
        if group:
            _empty_group(target, group)


def delete_parameters(target: Target) -> None:
    """Delete what the functions and hooks have remembered: another environment of this name would believe it."""
    names = [f"{target.config.ssm_prefix}/{name}" for name in PARAMETERS]
    target.client("ssm").delete_parameters(Names=names)


def stop_tasks(target: Target) -> None:
    """End what runs in the cluster: services go to 0, or away where a pipeline has made them; every task is stopped.

    CloudFormation ends only the tasks of its own services, and AWS deletes no cluster with another one in it. Raises
    OperatorError when some are still there after the time that a stop takes at most.
    """
    cluster = target.outputs_found.get("airflow", {}).get("ClusterName")
    ecs = target.client("ecs")
    if cluster is None or not _is_active(ecs, cluster):
        return
    foreign = target.outputs_found.get("pets", {}).get("ServiceName")
    for service in _services(ecs, cluster):
        if service["status"] != "ACTIVE":
            continue
        if service["serviceName"] == foreign:
            # CloudFormation doesn't know it, and would leave the cluster standing because of it.
            ecs.delete_service(cluster=cluster, service=foreign, force=True)
        elif service["desiredCount"]:
            ecs.update_service(cluster=cluster, service=service["serviceArn"], desiredCount=0)
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        tasks = _living_tasks(ecs, cluster)
        left = {task["group"] for task in tasks} | _draining(ecs, cluster, foreign)
        if not left:
            return
        if time.monotonic() > deadline:
            raise OperatorError(
                f"still running in {cluster} after {DRAIN_SECONDS} s: {', '.join(sorted(left))}; destroy again"
            )
        # In each look: a service may have started one more before it heard of its new number.
        for task in tasks:
            if task["desiredStatus"] != "STOPPED":
                ecs.stop_task(
                    cluster=cluster, task=task["taskArn"], reason="The environment is being destroyed"
                )
        time.sleep(POLL_SECONDS)


def _is_active(ecs: Any, cluster: str) -> bool:
    """A deleted cluster is described for a while yet, as INACTIVE."""
    found = ecs.describe_clusters(clusters=[cluster])["clusters"]
    return any(each["status"] == "ACTIVE" for each in found)


def _services(ecs: Any, cluster: str) -> list[dict[str, Any]]:
    pages = ecs.get_paginator("list_services").paginate(cluster=cluster)
    arns = [arn for page in pages for arn in page["serviceArns"]]
    found: list[dict[str, Any]] = []
    for start in range(0, len(arns), MOST_SERVICES_AT_ONCE):
        some = arns[start : start + MOST_SERVICES_AT_ONCE]
        found += ecs.describe_services(cluster=cluster, services=some)["services"]
    return found


def _draining(ecs: Any, cluster: str, service: str | None) -> set[str]:
    """The service while it ends: AWS lists it no more, but tells of it by its name."""
    if service is None:
        return set()
    found = ecs.describe_services(cluster=cluster, services=[service])["services"]
    return {f"service:{service}" for each in found if each["status"] == "DRAINING"}


def _living_tasks(ecs: Any, cluster: str) -> list[dict[str, Any]]:
    """Every task that has not stopped, those that were asked to among them."""
    arns = [
        arn
        for wanted in ("RUNNING", "STOPPED")
        for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=wanted)
        for arn in page["taskArns"]
    ]
    found: list[dict[str, Any]] = []
    for start in range(0, len(arns), MOST_TASKS_AT_ONCE):
        some = arns[start : start + MOST_TASKS_AT_ONCE]
        found += ecs.describe_tasks(cluster=cluster, tasks=some)["tasks"]
    return [task for task in found if task["lastStatus"] != "STOPPED"]


def _empty_bucket(target: Target, bucket: str) -> None:
    s3 = target.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [
            {"Key": item["Key"], "VersionId": item["VersionId"]}
            for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        ]
        for start in range(0, len(found), MOST_AT_ONCE):
            s3.delete_objects(
                Bucket=bucket, Delete={"Objects": found[start : start + MOST_AT_ONCE], "Quiet": True}
            )


def _empty_group(target: Target, group: str) -> None:
    sagemaker = target.client("sagemaker")
    pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    arns = [item["ModelPackageArn"] for page in pages for item in page["ModelPackageSummaryList"]]
    for arn in arns:
        sagemaker.delete_model_package(ModelPackageName=arn)
