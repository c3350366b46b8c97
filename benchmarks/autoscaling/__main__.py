"""Updraft's scaling beside the peers' rules and the clairvoyant optimum: `python -m benchmarks.autoscaling --json`.

Four traces, worker start times of 30, 60 and 120 s, five seeds. Prints the figures; exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.autoscaling.compare import Comparison, compare, dominating, figures, table
from benchmarks.autoscaling.picture import picture
from benchmarks.autoscaling.simulation import Fleet
from benchmarks.autoscaling.traces import TRACES

START_SECONDS = (30.0, 60.0, 120.0)
SEEDS = 5
LONGEST_WAIT_SECONDS = 5.0
Case = tuple[str, float, int]


def main() -> int:
    """Run every case, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--picture", type=Path, help="where to draw workers over load (SVG)")
    arguments = parser.parse_args()
    began = time.monotonic()
    cases = [
        (trace, start, seed) for trace in TRACES for start in START_SECONDS for seed in range(arguments.seeds)
    ]
    found: dict[Case, Comparison] = {}
    with ProcessPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for case, comparison in zip(cases, pool.map(run_case, cases), strict=True):
            found[case] = comparison
            print(f"{case[0]} {case[1]:.0f} s, seed {case[2]}", file=sys.stderr)
    result = summary(found) | {"seconds": round(time.monotonic() - began, 1), "seeds": arguments.seeds}
    if arguments.picture:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        shown = found["cron", 60.0, 0].results
        arguments.picture.write_text(picture(shown, Fleet().slots, "cron-heavy ETL, worker start 60 s"))
    print(json.dumps(result, indent=2) if arguments.json else readable(result))
    return 0 if all(result["goals"].values()) else 1


def run_case(case: Case) -> Comparison:
    """One trace, start time and seed under every rule."""
    trace, start_seconds, seed = case
    return compare(TRACES[trace](random.Random(seed)), Fleet(start_seconds=start_seconds), seed)


def summary(found: dict[Case, Comparison]) -> dict[str, Any]:
    """Figures overall, by trace, and by trace and start time, held against the goals."""
    overall = figures(list(found.values()))
    traces = {
        name: figures([item for case, item in found.items() if case[0] == name])
        for name in dict.fromkeys(case[0] for case in found)
    }
    cells = {
        f"{name}, {start:.0f} s": figures([item for case, item in found.items() if case[:2] == (name, start)])
        for name, start in dict.fromkeys(case[:2] for case in found)
    }
    dominated = {name: rules for name, values in (traces | cells).items() if (rules := dominating(values))}
    own = overall["updraft"]
    return {
        "wait_p95_seconds_scheduled": own["wait_p95_seconds_scheduled"],
        "killed_tasks": own["killed_tasks"],
        "cost_ratio_over_mwaa": own["cost_ratio_over_mwaa"],
        "ratio_to_optimum": own["ratio_to_optimum"],
        "goals": {
            "wait_p95_seconds_scheduled <= 5 in every case": all(
                values["updraft"]["wait_p95_seconds_scheduled"] <= LONGEST_WAIT_SECONDS
                for values in cells.values()
            ),
            "killed_tasks = 0": own["killed_tasks"] == 0,
            "cost_ratio_over_mwaa <= 1.0 overall and on every trace": all(
                values["updraft"]["cost_ratio_over_mwaa"] <= 1.0 for values in (overall, *traces.values())
            ),
            "not dominated in any case": not dominated,
        },
        "dominated": dominated,
        "overall": overall,
        "traces": traces,
        "cases": cells,
    }


def readable(result: dict[str, Any]) -> str:
    """Tables by trace, then the goals."""
    parts = [
        f"{name}\n{table(values)}"
        for name, values in (result["traces"] | {"overall": result["overall"]}).items()
    ]
    goals = [f"{'ok' if met else 'MISSED':>6}  {goal}" for goal, met in result["goals"].items()]
    return "\n\n".join([*parts, "\n".join(goals), f"{result['seconds']} s"])


if __name__ == "__main__":
    sys.exit(main())
