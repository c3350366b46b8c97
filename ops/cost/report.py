"""The month in four columns: round the clock without a task, at a load, with sleep, and MWAA at the same load."""

from __future__ import annotations

from typing import Any

from ops.console import table
from ops.cost.estimate import line_items
from ops.cost.model import HOURS_PER_MONTH, WEEKS_PER_MONTH, Environment, Usage
from ops.prices import price, price_file


def estimate(environment: Environment, *, task_hours: float, awake_hours_per_week: float) -> dict[str, Any]:
    """US dollars a month, line by line; `asleep` is the load's month with the rest of each week asleep."""
    uses = {
        "floor": Usage(),
        "load": Usage(task_hours=task_hours),
        "asleep": Usage(awake_hours=awake_hours_per_week * WEEKS_PER_MONTH),
        "asleep_load": Usage(awake_hours=awake_hours_per_week * WEEKS_PER_MONTH, task_hours=task_hours),
    }
    columns = {name: line_items(environment, usage) for name, usage in uses.items()}
    rows = [
        {
            "stack": items[0].stack,
            "logical_id": items[0].logical_id,
            "what": items[1].what,
            **{name: round(item.cost(uses[name]), 2) for name, item in zip(uses, items, strict=True)},
        }
        for items in zip(*columns.values(), strict=True)
    ]
    totals = {name: round(sum(item.cost(uses[name]) for item in items), 2) for name, items in columns.items()}
    mwaa = mwaa_usd(task_hours)
    file = price_file()
    return {
        "usd_per_month": totals,
        "mwaa_usd_per_month": {"floor": round(mwaa_usd(0), 2), "load": round(mwaa, 2)},
        "cost_ratio_over_mwaa": round(totals["load"] / mwaa, 3),
        "task_hours": task_hours,
        "awake_hours_per_week": awake_hours_per_week,
        "prices": {name: file[name] for name in ("date", "region", "source")},
        "items": sorted(rows, key=lambda row: -float(row["floor"])),
    }


def mwaa_usd(task_hours: float) -> float:
    """A small MWAA environment with workers by its own rule for the same task hours, its network not counted."""
    worker_hours = task_hours * Usage().slot_hours_per_task_hour / price("mwaa", "small_worker_slots")
    # The first worker is part of the environment and runs all the time.
    more = max(0.0, worker_hours - HOURS_PER_MONTH)
    return (
        HOURS_PER_MONTH * price("mwaa", "small_environment_usd_per_hour")
        + more * price("mwaa", "small_worker_usd_per_hour")
        + 20 * price("mwaa", "storage_usd_per_gib_month")
    )


def readable(document: dict[str, Any]) -> str:
    """The estimate as a table with its totals and its source."""
    totals, mwaa = document["usd_per_month"], document["mwaa_usd_per_month"]
    rows = [
        {key: f"{value:8.2f}" if isinstance(value, float) else value for key, value in row.items()}
        for row in [*document["items"], {"what": "together", **totals}]
    ]
    prices = document["prices"]
    return "\n".join(
        [
            table(rows, ["floor", "load", "asleep", "asleep_load", "what"]),
            "",
            f"US dollars a month. floor: round the clock without a task; load: {document['task_hours']:g} task hours; "
            f"asleep: outside {document['awake_hours_per_week']:g} hours a week.",
            f"MWAA, small: {mwaa['floor']:.2f} without a task, {mwaa['load']:.2f} at the same load; "
            f"this environment costs {document['cost_ratio_over_mwaa']:.2f} of it.",
            f"Prices: {prices['source']}, {prices['region']}, {prices['date']}; no free tier. SageMaker jobs, data "
            "transfer out and taxes come on top.",
        ]
    )
