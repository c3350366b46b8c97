"""Empties what CloudFormation refuses to delete while something is in it."""

from __future__ import annotations

import time
from typing import Any

from ops.console import OperatorError
from ops.target import Target

BUCKETS = ("LogsBucket", "BundlesBucket", "DataBucket")
MOST_AT_ONCE = 1000
DRAIN_SECONDS = 300


def empty(target: Target) -> None:
    """Delete every object version and model package of an environment that doesn't keep its data."""
    storage = target.outputs.get("storage", {})
    for output in BUCKETS:
        if output in storage:
            _empty_bucket(target, storage[output])
    for stack in ("workflows", "pets"):
        group = target.outputs.get(stack, {}).get("ModelPackageGroupName")
        if group:
            _empty_group(target, group)


def remove_services(target: Target) -> None:
    """Delete the services that pipelines have made: CloudFormation doesn't know them, and their cluster would stay."""
    service = target.outputs.get("pets", {}).get("ServiceName")
    if service is None:
        return
    ecs, cluster = target.client("ecs"), target.output("airflow", "ClusterName")
    if any(each["status"] == "ACTIVE" for each in _described(ecs, cluster, service)):
        ecs.delete_service(cluster=cluster, service=service, force=True)
    deadline = time.monotonic() + DRAIN_SECONDS
    while any(each["status"] == "DRAINING" for each in _described(ecs, cluster, service)):
        if time.monotonic() > deadline:
            raise OperatorError(f"service {service} still drains after {DRAIN_SECONDS} s; destroy again")
        time.sleep(1)


def _described(ecs: Any, cluster: str, service: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ecs.describe_services(cluster=cluster, services=[service])["services"]
    return found


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
