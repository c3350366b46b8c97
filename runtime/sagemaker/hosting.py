"""What an environment's endpoints cost: those that are there now, at what runs now.

SageMaker tells nothing of an endpoint that was deleted, and not what served before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from runtime.sagemaker.kinds import PAGE_SIZE
from runtime.sagemaker.resources import is_missing


@dataclass(frozen=True)
class Hosted:
    """One endpoint. `instances` are counts by instance type, `hours` those that were asked for, `usd` what they
    cost; None where an instance type has no price."""

    name: str
    arn: str
    status: str
    instances: dict[str, int]
    hours: float
    usd: float | None


def hosted(
    client: Any, *, prefix: str, prices: Mapping[str, float], since: datetime, now: datetime
) -> Iterator[Hosted]:
    """The endpoints of an environment with what they cost from `since` to `now`, the oldest first; `prices` are USD
    per hour by instance type."""
    pages = client.get_paginator("list_endpoints").paginate(
        NameContains=prefix,
        SortBy="CreationTime",
        SortOrder="Ascending",
        PaginationConfig={"PageSize": PAGE_SIZE},
    )
    for name in [each["EndpointName"] for page in pages for each in page["Endpoints"]]:
        if not name.startswith(f"{prefix}-"):
            continue
        try:
            endpoint = client.describe_endpoint(EndpointName=name)
        except ClientError as error:
            if not is_missing(error):
                raise
            continue  # deleted since it was listed
        counts = _instances(client, endpoint)
        hours = max(0.0, (now - max(since, endpoint["CreationTime"])).total_seconds() / 3600)
        priced = all(each in prices for each in counts)
        yield Hosted(
            name=name,
            arn=endpoint["EndpointArn"],
            status=endpoint["EndpointStatus"],
            instances=counts,
            hours=hours,
            usd=sum(prices[each] * count for each, count in counts.items()) * hours if priced else None,
        )


def _instances(client: Any, endpoint: Mapping[str, Any]) -> dict[str, int]:
    types = _instance_types(client, endpoint["EndpointConfigName"])
    counts: dict[str, int] = {}
    for variant in endpoint.get("ProductionVariants", []):
        for kind, count in _variant(variant, types):
            counts[kind] = counts.get(kind, 0) + count
    return counts


def _instance_types(client: Any, config_name: str) -> dict[str, str]:
    """Instance types by variant, of those that have one; none where the configuration was deleted behind its endpoint."""
    try:
        config = client.describe_endpoint_config(EndpointConfigName=config_name)
    except ClientError as error:
        if not is_missing(error):
            raise
        return {}
    return {
        each["VariantName"]: each["InstanceType"]
        for each in config["ProductionVariants"]
        if "InstanceType" in each
    }


def _variant(variant: Mapping[str, Any], types: Mapping[str, str]) -> list[tuple[str, int]]:
    """Instance types and counts of an endpoint's variant; of pools, which name their types, those with instances."""
    if "CurrentServerlessConfig" in variant:
        return [("serverless", 1)]
    if pools := variant.get("InstancePools"):
        return [
            (each["InstanceType"], each["CurrentInstanceCount"])
            for each in pools
            if each["CurrentInstanceCount"]
        ]
    return [(types.get(variant["VariantName"], "unknown"), variant.get("CurrentInstanceCount", 0))]
