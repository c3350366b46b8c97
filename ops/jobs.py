"""The ledger: what ran of an environment's SageMaker jobs this month, whose it was, what it cost, and who stopped it;
and the endpoints that are there now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from ops.console import table
from ops.target import Target
from runtime.sagemaker.hosting import Hosted, hosted
from runtime.sagemaker.resources import is_missing
from runtime.sagemaker.spend import DESCRIBED_AT_ONCE, Entry, entries, month_of, total_usd, unpriced

STOPPED = ("Stopping", "Stopped")
ENDPOINT_COLUMNS = ["endpoint", "dag_run", "task", "state", "instance", "hours", "usd"]
COLUMNS = [
    "job", "dag_run", "task", "state", "instance", "billable_seconds", "pool_seconds", "usd", "spot_saving",
    "stopped_by", "reason",
]  # fmt: skip


def ledger(target: Target, now: datetime) -> dict[str, Any]:
    """`jobs` that ran since the month of `now` (UTC) began, as far as they ran in it, oldest first; `usd`,
    `budget_usd` and what is missing in the sum.

    `endpoints` are those that are there now, with their hours and cost since the month began; `usd` has both, as the
    budget gate counts.
    """
    client = target.client("sagemaker")
    parameter = target.client("ssm").get_parameter(Name=target.output("workflows", "SettingsParameter"))
    settings = json.loads(parameter["Parameter"]["Value"])
    month, prices = month_of(now), settings["usd_per_hour"]
    jobs = sorted(
        entries(client, prefix=target.prefix, prices=prices, now=now), key=lambda each: each.created_at
    )
    hosts = list(hosted(client, prefix=target.prefix, prices=prices, since=month, now=now))
    paid: list[Entry | Hosted] = [*jobs, *hosts]
    # A training that was stopped with its tuning job: who did it is written on the tuning job.
    stopped = {each.tuning_arn for each in jobs if each.tuning_arn and each.status in STOPPED}
    arns = [*(each.arn for each in paid), *stopped]
    with ThreadPoolExecutor(DESCRIBED_AT_ONCE) as pool:
        tags = dict(zip(arns, pool.map(lambda arn: _tags(client, arn), arns), strict=True))
    return {
        "month": month.strftime("%Y-%m"),
        "jobs": [row(each, tags.get(each.tuning_arn or "", {}) | tags[each.arn]) for each in jobs],
        "usd": round(total_usd(paid), 4),
        "budget_usd": settings["monthly_budget_usd"],
        "without_a_price": unpriced(paid, prices),
        "endpoints": [_endpoint(each, tags[each.arn]) for each in hosts],
    }


def _endpoint(each: Hosted, tags: Mapping[str, str]) -> dict[str, Any]:
    return {
        "endpoint": each.name,
        "dag_run": _dag_run(tags),
        "task": tags.get("updraft:task"),
        "state": each.status,
        "instance": _instances(each.instances) or None,
        "hours": round(each.hours, 2),
        "usd": _rounded(each.usd),
    }


def _instances(counts: Mapping[str, int]) -> str:
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in counts.items() if count)


def _rounded(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 4)


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
        "instance": _instances(each.instances),
        "usd": _rounded(each.usd),
        "spot_saving": f"{saved / each.seconds:.0%}" if saved > 0 else None,
        "stopped_by": tags.get("updraft:stopped-by") if stopped else None,
        "reason": tags.get("updraft:stop-reason") if stopped else None,
    }


def readable(result: Mapping[str, Any]) -> str:
    """The ledger as a table and its sum."""
    tables = [
        table(rows, columns)
        for rows, columns in ((result["endpoints"], ENDPOINT_COLUMNS), (result["jobs"], COLUMNS))
        if rows
    ]
    if not tables:
        return f"No SageMaker job in {result['month']}, and no endpoint."
    total = f"{result['month']}: ${result['usd']:.2f} of ${result['budget_usd']}"
    if result["without_a_price"]:
        total += f"; not counted, since they have no price: {', '.join(result['without_a_price'])}"
    return "\n\n".join([*tables, total])


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
