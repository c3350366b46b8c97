"""What an environment has spent on SageMaker, from SageMaker's own lists and the environment's prices.

A month (UTC) has what ran in it, also of a job that began before. Of a job's billable seconds it has the share that it
has of the time from the job's start to its end: exact on demand; on spot, where SageMaker tells only the sum, as if
the interruptions were spread evenly. What a warm pool waited counts from the training's end on, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runtime.sagemaker.hosting import Hosted, hosted
from runtime.sagemaker.kinds import (
    ENDED,
    KINDS,
    PAGE_SIZE,
    JobKind,
    billable_seconds,
    instances,
    pool_seconds,
)

# Trainings of a tuning job are listed as trainings.
BILLED_KINDS = ("training", "processing", "transform")
DESCRIBED_AT_ONCE = 8
# What runs in a month was made at most this long before it: `workflows.max_runtime_seconds` is five days at most, on
# spot twice that (`requests.SPOT_WAIT_FACTOR`), and a day is for the wait for an instance and for a warm pool.
LONGEST_JOB = timedelta(days=11)


@dataclass(frozen=True)
class Entry:
    """One job of the ledger, as far as it ran in the month.

    `instances` are counts by instance type. `seconds` are of wall time, `billable_seconds` what is billed of them,
    `pool_seconds` what the warm pool is billed for after them; all of them for each instance. `usd` has the job and
    its pool, None where an instance type has no price. `tuning_arn` is of the tuning job that made a training.
    """

    kind: str
    name: str
    arn: str
    tuning_arn: str | None
    status: str
    created_at: datetime
    instances: dict[str, int]
    seconds: int
    billable_seconds: int
    pool_seconds: int
    usd: float | None


def month_of(now: datetime) -> datetime:
    """When the month began."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def entry(kind: str, job: Mapping[str, Any], prices: Mapping[str, float], now: datetime) -> Entry:
    """The line of a described job in the ledger of the month of `now`; `prices` are USD per hour by instance type."""
    names = KINDS[kind]
    share = _share(names, job, now)
    whole = billable_seconds(kind, job, now)
    unpriced_entry = Entry(
        kind=kind,
        name=job[names.name_key],
        arn=job[names.arn_key],
        tuning_arn=job.get("TuningJobArn"),
        status=job[names.status_key],
        created_at=job["CreationTime"],
        instances=instances(kind, job),
        seconds=round(job.get("TrainingTimeInSeconds", whole) * share),
        billable_seconds=round(whole * share),
        pool_seconds=_pool_seconds_this_month(job, now),
        usd=None,
    )
    return priced(unpriced_entry, prices)


def priced(each: Entry, prices: Mapping[str, float]) -> Entry:
    """The line with what it costs at these prices."""
    if not all(kind in prices for kind in each.instances):
        return replace(each, usd=None)
    hourly = sum(prices[kind] * count for kind, count in each.instances.items())
    return replace(each, usd=(each.billable_seconds + each.pool_seconds) / 3600 * hourly)


def total_usd(paid: Iterable[Entry | Hosted]) -> float:
    """The sum of what has a price."""
    return sum(each.usd or 0.0 for each in paid)


def unpriced(paid: Iterable[Entry | Hosted], prices: Mapping[str, float]) -> list[str]:
    """The instance types that have no price."""
    return sorted({kind for each in paid for kind in each.instances if kind not in prices})


def entries(
    client: Any,
    *,
    prefix: str,
    prices: Mapping[str, float],
    now: datetime,
    known: dict[str, Entry] | None = None,
) -> Iterator[Entry]:
    """The line of every billed job of an environment that was there in the month of `now`; of each kind the oldest
    first.

    `known` are lines that can't change any more, by ARN: their jobs aren't described again, and new ones are added.
    """
    known = {} if known is None else known
    month = month_of(now)
    with ThreadPoolExecutor(DESCRIBED_AT_ONCE) as pool:
        for kind in BILLED_KINDS:
            names = KINDS[kind]
            pages = client.get_paginator(names.list).paginate(
                NameContains=prefix, CreationTimeAfter=month - LONGEST_JOB,
                SortBy="CreationTime", SortOrder="Ascending", PaginationConfig={"PageSize": PAGE_SIZE},
            )  # fmt: skip
            found = [
                summary
                for page in pages
                for summary in page[names.summaries]
                if summary[names.name_key].startswith(f"{prefix}-")
                and _last_billed(names, summary, now) >= month
            ]

            def line(summary: Mapping[str, Any], kind: str = kind, names: JobKind = names) -> Entry:
                if (before := known.get(summary[names.arn_key])) is not None:
                    return priced(before, prices)
                job = getattr(client, names.describe)(**{names.name_key: summary[names.name_key]})
                each = entry(kind, job, prices, now)
                if _is_final(names, job):
                    known[each.arn] = each
                return each

            yield from pool.map(line, found)


def spent_this_month(
    client: Any,
    *,
    prefix: str,
    prices: Mapping[str, float],
    now: datetime,
    known: dict[str, Entry] | None = None,
) -> tuple[float, list[str]]:
    """USD since the month began (UTC), of jobs and endpoints, and instance types that could not be priced."""
    paid: list[Entry | Hosted] = []
    paid += entries(client, prefix=prefix, prices=prices, now=now, known=known)
    paid += hosted(client, prefix=prefix, prices=prices, since=month_of(now), now=now)
    return total_usd(paid), unpriced(paid, prices)


def _last_billed(names: JobKind, summary: Mapping[str, Any], now: datetime) -> datetime:
    """When a listed job ended, its warm pool included; `now` while it runs, its creation if it never ran."""
    if summary[names.status_key] not in ENDED:
        return now
    ended: datetime = summary.get(f"{names.prefix}EndTime", summary["CreationTime"])
    return ended + timedelta(seconds=pool_seconds(summary, now))


def _is_final(names: JobKind, job: Mapping[str, Any]) -> bool:
    """Whether nothing more of a described job will be billed."""
    pool = job.get("WarmPoolStatus", {}).get("Status", "Terminated")
    return job[names.status_key] in ENDED and pool in ("Terminated", "Reused")


def _share(names: JobKind, job: Mapping[str, Any], now: datetime) -> float:
    """How much of a described job's time is of the month of `now`, between 0 and 1."""
    month, started = month_of(now), job.get(f"{names.prefix}StartTime")
    if started is None or started >= month:
        return 1.0
    ended = job.get(f"{names.prefix}EndTime", now)
    return 0.0 if ended <= month else float((ended - month) / (ended - started))


def _pool_seconds_this_month(job: Mapping[str, Any], now: datetime) -> int:
    whole, ended = pool_seconds(job, now), job.get("TrainingEndTime")
    if ended is None:
        return whole
    return max(0, min(whole, round((ended - month_of(now)).total_seconds()) + whole))
