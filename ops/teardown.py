"""Empties what CloudFormation refuses to delete while something is in it."""

from __future__ import annotations

from ops.target import Target

BUCKETS = ("LogsBucket", "BundlesBucket", "DataBucket")
MOST_AT_ONCE = 1000


def empty(target: Target) -> None:
    """Delete every object version and model package of an environment that doesn't keep its data."""
    storage = target.outputs.get("storage", {})
    for output in BUCKETS:
        if output in storage:
            _empty_bucket(target, storage[output])
    group = target.outputs.get("workflows", {}).get("ModelPackageGroupName")
    if group:
        _empty_group(target, group)


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
