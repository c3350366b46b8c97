"""What an environment's SageMaker jobs have cost, from SageMaker's own list and the environment's prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtime.sagemaker.kinds import KINDS, billable_seconds, cluster

# Trainings of a tuning job are listed as trainings.
BILLED_KINDS = ("training", "processing", "transform")
DESCRIBED_AT_ONCE = 8


@dataclass(frozen=True)
class Entry:
    """One job of the ledger. `usd` is None for an instance type without a price; `seconds` are of wall time,
    `billable_seconds` what is billed of them; both for each of `instances`."""

    kind: str
    name: str
    arn: str
    status: str
    created_at: datetime
    instance_type: str
    instances: int
    seconds: int
    billable_seconds: int
    usd: float | None


def entry(kind: str, job: Mapping[str, Any], prices: Mapping[str, float], now: datetime) -> Entry:
    """The ledger's line of a described job; `prices` are USD per hour by instance type."""
    names = KINDS[kind]
    instance_type, instances = cluster(kind, job)
    billable = billable_seconds(kind, job, now)
    price = prices.get(instance_type)
    return Entry(
        kind=kind,
        name=job[names.name_key],
        arn=job[names.arn_key],
        status=job[names.status_key],
        created_at=job["CreationTime"],
        instance_type=instance_type,
        instances=instances,
        seconds=int(job.get("TrainingTimeInSeconds", billable)),
        billable_seconds=billable,
        usd=None if price is None else billable / 3600 * instances * price,
    )


def described(client: Any, *, prefix: str, since: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and description of every billed job of an environment that was made since then, oldest first."""
    with ThreadPoolExecutor(DESCRIBED_AT_ONCE) as pool:
        for kind in BILLED_KINDS:
            names = KINDS[kind]
            pages = client.get_paginator(names.list).paginate(
                NameContains=prefix, CreationTimeAfter=since, SortBy="CreationTime", SortOrder="Ascending"
            )
            found = [
                summary[names.name_key]
                for page in pages
                for summary in page[names.summaries]
                if summary[names.name_key].startswith(f"{prefix}-")
            ]
            describe = getattr(client, names.describe)
            for job in pool.map(lambda name, d=describe, k=names.name_key: d(**{k: name}), found):
                yield kind, job


def spent_this_month(
    client: Any, *, prefix: str, prices: Mapping[str, float], now: datetime
) -> tuple[float, list[str]]:
    """USD since the month began (UTC), and instance types that could not be priced."""
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    entries = [entry(kind, job, prices, now) for kind, job in described(client, prefix=prefix, since=month)]
    unpriced = sorted({each.instance_type for each in entries if each.usd is None})
    return sum(each.usd or 0.0 for each in entries), unpriced
