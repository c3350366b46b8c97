"""Every rule on one trace: figures per rule, beside the optimum. Used by the benchmark and by `scale simulate`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.autoscaling.optimum import optimal_worker_seconds
from benchmarks.autoscaling.rules import RULES
from benchmarks.autoscaling.simulation import Fleet, Result, Simulation
from benchmarks.autoscaling.traces import Trace

TOLERANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Results by rule, and the worker-seconds of the optimum, of one trace and fleet."""

    results: dict[str, Result]
    optimum: float


def compare(trace: Trace, fleet: Fleet, seed: int, rules: Iterable[str] = tuple(RULES)) -> Comparison:
    """Simulate every rule on the same trace."""
    results = {name: Simulation(trace, fleet, RULES[name](fleet), seed).simulate() for name in rules}
    return Comparison(results, optimal_worker_seconds(trace, fleet))


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


def figures(comparisons: list[Comparison]) -> dict[str, dict[str, Any]]:
    """The figures of each rule over several comparisons, with costs as ratios to MWAA and to the optimum.

    `wait_p95_seconds_scheduled` is of the first tasks of scheduled runs, `wait_p95_seconds` of all tasks;
    `killed_tasks` died by the rule, `interrupted_tasks` by spot.
    """
    optimum = sum(item.optimum for item in comparisons)
    mwaa = sum(item.results["mwaa"].worker_seconds for item in comparisons)
    return {rule: _figures(comparisons, rule, mwaa=mwaa, optimum=optimum) for rule in comparisons[0].results}


def _figures(comparisons: list[Comparison], rule: str, *, mwaa: float, optimum: float) -> dict[str, Any]:
    results = [item.results[rule] for item in comparisons]
    billed = sum(result.worker_seconds for result in results)
    scheduled = [wait for result in results for wait in result.waits_first_scheduled]
    waits = [wait for result in results for wait in result.waits]
    return {
        "wait_p95_seconds_scheduled": round(percentile(scheduled, 0.95), 1),
        "wait_p95_seconds": round(percentile(waits, 0.95), 1),
        "wait_mean_seconds": round(sum(waits) / max(1, len(waits)), 1),
        "killed_tasks": sum(result.killed for result in results),
        "interrupted_tasks": sum(result.spot_killed for result in results),
        "unfinished_runs": sum(result.unfinished for result in results),
        "worker_hours": round(billed / 3600, 1),
        "cost_ratio_over_mwaa": round(billed / mwaa, 3),
        "ratio_to_optimum": round(billed / optimum, 3),
    }


def dominating(found: dict[str, dict[str, Any]]) -> list[str]:
    """Rules that beat Updraft in both cost and wait by more than the tolerance, in either reading of wait."""
    own = found["updraft"]
    return [
        rule
        for rule, values in found.items()
        if rule != "updraft"
        and values["worker_hours"] < own["worker_hours"] * (1 - TOLERANCE)
        and any(
            values[wait] < own[wait] * (1 - TOLERANCE)
            for wait in ("wait_p95_seconds_scheduled", "wait_p95_seconds")
        )
    ]


def table(found: dict[str, dict[str, Any]]) -> str:
    """The figures as a plain table, one line a rule."""
    columns = list(next(iter(found.values())))
    short = {name: name.replace("_seconds", " s").replace("_ratio", "").replace("_", " ") for name in columns}
    lines = [["rule", *short.values()]] + [
        [rule, *(str(values[name]) for name in columns)] for rule, values in found.items()
    ]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
