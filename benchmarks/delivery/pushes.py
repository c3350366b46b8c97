"""Pushes with one DAG changed each, and rollbacks: the seconds until a run is on the new version."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.delivery.platform import Platform, tell
from benchmarks.delivery.trees import small_dags

DAGS = 5


def pushes(platform: Platform, count: int) -> dict[str, Any]:
    """Push `count` times; `push_median_seconds` and `push_p95_seconds` until a run, and a median for each phase."""
    rows: list[dict[str, float]] = []
    mark = f"{time.time():.0f}"
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(count):
            folder = Path(scratch) / "dags"
            ids = small_dags(folder, f"{mark}-{number}", dags=DAGS, changed=number % DAGS)
            started = time.monotonic()
            pushed = platform.updraft("push", "--dags", str(folder))
            live = time.monotonic()
            run = platform.start_run(ids[number % DAGS])
            ended = time.monotonic()
            if run["bundle_version"] != pushed["version"]:
                raise AssertionError(f"the run is on {run['bundle_version']}, pushed was {pushed['version']}")
            phases = pushed["seconds"]
            command = live - started - sum(phases.values())
            rows.append({**phases, "command_start": command, "run": ended - live, "total": ended - started})
            tell(f"push {number + 1}/{count}: {ended - started:.1f} s")
    totals = [row["total"] for row in rows]
    return {
        "pushes": count,
        "push_median_seconds": round(statistics.median(totals), 2),
        "push_p95_seconds": percentile(totals, 95),
        "push_phase_median_seconds": _medians(rows),
    }


def rollbacks(platform: Platform, count: int) -> dict[str, Any]:
    """Roll back and forth between two versions; the seconds of the whole command."""
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        for mark in (f"{time.time():.0f}-one", f"{time.time():.0f}-two"):
            small_dags(Path(scratch) / "dags", mark, dags=DAGS, changed=0)
            platform.updraft("push", "--dags", str(Path(scratch) / "dags"))
    rows = []
    for number in range(count):
        started = time.monotonic()
        rows.append(platform.updraft("rollback")["seconds"])
        seconds.append(time.monotonic() - started)
        tell(f"rollback {number + 1}/{count}: {seconds[-1]:.1f} s")
    return {
        "rollbacks": count,
        "rollback_median_seconds": round(statistics.median(seconds), 2),
        "rollback_p95_seconds": percentile(seconds, 95),
        "rollback_phase_median_seconds": _medians(rows),
    }


def percentile(values: list[float], share: int) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * share // 100) - 1)], 2)


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    phases: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, seconds in row.items():
            phases[name].append(seconds)
    return {name: round(statistics.median(seconds), 2) for name, seconds in phases.items() if name != "total"}
