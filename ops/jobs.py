"""The ledger: what ran of an environment's SageMaker jobs this month, whose it was, what it cost, and who stopped it;
and the endpoints that are there now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from ops.console import table
from ops.target import Target
from runtime.sagemaker.resources import is_missing
from runtime.sagemaker.spend import DESCRIBED_AT_ONCE, Entry, described, entry, month_of, unpriced

STOPPED = ("Stopping", "Stopped")
ENDPOINT_COLUMNS = ["endpoint", "dag_run", "task", "state", "instance", "hours", "usd"]
COLUMNS = [
    "job", "dag_run", "task", "state", "instance", "billable_seconds", "pool_seconds", "usd", "spot_saving",
    "stopped_by", "reason",
]  # fmt: skip


def ledger(target: Target, now: datetime) -> dict[str, Any]:
    """`jobs` that ran since the month of `now` (UTC) began, as far as they ran in it, oldest first; `usd`,
    `budget_usd` and what is missing in the sum.

    `endpoints` are those that are there now, with their hours and cost since the month began; the budget gate doesn't
    count them, so `usd` doesn't.
    """
    client = target.client("sagemaker")
    parameter = target.client("ssm").get_parameter(Name=target.output("workflows", "SettingsParameter"))
    settings = json.loads(parameter["Parameter"]["Value"])
    month, prices = month_of(now), settings["usd_per_hour"]
    entries = [
        entry(kind, job, prices, now) for kind, job in described(client, prefix=target.prefix, now=now)
    ]
    entries.sort(key=lambda each: each.created_at)
    # A training that was stopped with its tuning job: who did it is written on the tuning job.
    stopped = {each.tuning_arn for each in entries if each.tuning_arn and each.status in STOPPED}
    arns = [*(each.arn for each in entries), *stopped]
    with ThreadPoolExecutor(DESCRIBED_AT_ONCE) as pool:
        tags = dict(zip(arns, pool.map(lambda arn: _tags(client, arn), arns), strict=True))
    return {
        "month": month.strftime("%Y-%m"),
        "jobs": [row(each, tags.get(each.tuning_arn or "", {}) | tags[each.arn]) for each in entries],
        "usd": round(sum(each.usd or 0.0 for each in entries), 4),
        "budget_usd": settings["monthly_budget_usd"],
        "without_a_price": unpriced(entries, prices),
        "endpoints": endpoints(client, target.prefix, prices, month, now),
    }


def endpoints(
    client: Any, prefix: str, prices: Mapping[str, float], month: datetime, now: datetime
) -> list[dict[str, Any]]:
    """The endpoints of an environment: whose they are, and what they cost since `month`, at what runs now."""
    pages = client.get_paginator("list_endpoints").paginate(
        NameContains=prefix, SortBy="CreationTime", SortOrder="Ascending"
    )
    names = [each["EndpointName"] for page in pages for each in page["Endpoints"]]
    found = [client.describe_endpoint(EndpointName=name) for name in names if name.startswith(f"{prefix}-")]
    return [_endpoint(client, each, prices, month, now) for each in found]


def _endpoint(
    client: Any, endpoint: Mapping[str, Any], prices: Mapping[str, float], month: datetime, now: datetime
) -> dict[str, Any]:
    types = _instance_types(client, endpoint["EndpointConfigName"])
    counts = [found for each in endpoint.get("ProductionVariants", []) for found in _variant(each, types)]
    hours = max(0.0, (now - max(month, endpoint["CreationTime"])).total_seconds() / 3600)
    priced = all(kind in prices for kind, _ in counts)
    usd = sum(prices[kind] * count * hours for kind, count in counts) if priced else None
    tags = _tags(client, endpoint["EndpointArn"])
    return {
        "endpoint": endpoint["EndpointName"],
        "dag_run": _dag_run(tags),
        "task": tags.get("updraft:task"),
        "state": endpoint["EndpointStatus"],
        "instance": _instances(counts) or None,
        "hours": round(hours, 2),
        "usd": None if usd is None else round(usd, 4),
    }


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


def _instances(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in counts)


def _dag_run(tags: Mapping[str, str]) -> str | None:
    return "/".join(filter(None, (tags.get("updraft:dag"), tags.get("updraft:run")))) or None


def row(each: Entry, tags: Mapping[str, str]) -> dict[str, Any]:
    """One job for people and programs; what isn't known is None."""
    saved = each.seconds - each.billable_seconds
    # A stop that came too late has left its label on a job that ended by itself.
    stopped = each.status in STOPPED
    return asdict(each) | {
        "job": each.name,
        "dag_run": _dag_run(tags),
        "task": tags.get("updraft:task"),
        "state": each.status,
        "instance": _instances(each.instances.items()),
        "usd": None if each.usd is None else round(each.usd, 4),
        "spot_saving": f"{saved / each.seconds:.0%}" if saved > 0 else None,
        "stopped_by": tags.get("updraft:stopped-by") if stopped else None,
        "reason": tags.get("updraft:stop-reason") if stopped else None,
    }


def readable(result: Mapping[str, Any]) -> str:
    """The ledger as a table and its sum."""
    hosted = f"{table(result['endpoints'], ENDPOINT_COLUMNS)}\n\n" if result["endpoints"] else ""
    if not result["jobs"]:
        return f"{hosted}No SageMaker job in {result['month']}."
    total = f"{result['month']}: ${result['usd']:.2f} of ${result['budget_usd']}"
    if result["without_a_price"]:
        total += f"; not counted, since they have no price: {', '.join(result['without_a_price'])}"
    return f"{hosted}{table(result['jobs'], COLUMNS)}\n\n{total}"


def read(target: Target) -> dict[str, Any]:
    """The ledger of this month."""
    return ledger(target, datetime.now(UTC))


def _tags(client: Any, arn: str) -> dict[str, str]:
    """The tags; none where a tuning job was deleted behind its trainings."""
    try:
        pages = client.get_paginator("list_tags").paginate(ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}
    except ClientError as error:
        if not is_missing(error):
            raise
        return {}
