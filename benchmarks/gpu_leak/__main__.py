"""`python -m benchmarks.gpu_leak [--json]`: every path of a job's ownership on the local platform, which must be up.

It pushes DAGs of its own, kills services by their own pid, and clears, marks and deletes through Airflow's API.
Prints what was expected and what happened; exits 1 when one of ours misses its goal. `./updraft push` brings the
project's own DAGs back.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu_leak.observer import Airflow, Observer, wait_for
from benchmarks.gpu_leak.orphan import orphan_seconds
from benchmarks.gpu_leak.paths import (
    FAULT_PATHS,
    SERVICE_PATHS,
    USER_PATHS,
    Bench,
    run_fault_path,
    run_service_path,
    run_user_paths,
)
from ops import delivery
from ops.console import say, table
from ops.target import target_of

DAGS = Path(__file__).parent / "dags"
MODES = ("deferrable", "sync")
# A lost worker's task is noticed five minutes later; its job still runs then.
LOST_WORKER_SECONDS = 420
SERVICE_JOB_SECONDS = 60
MOST_LEAK_SECONDS = 15
MOVED_DAG = "leak_ours_deferrable_plain"
# A dead triggerer's triggers are given away when it was not heard for a while.
MOVE_SECONDS = 240
# From taking a trigger over to running it.
MOVE_SETTLE_SECONDS = 4


def main() -> int:
    """Run the chosen paths and print one document."""
    arguments = _arguments()
    target = target_of("local")
    delivery.push(target, DAGS)
    login = target.credentials()["webserver"]
    airflow = Airflow("http://127.0.0.1:8080", **login)
    observer = Observer(target)
    observer.start()
    bench = Bench(target, airflow, observer)
    try:
        with ThreadPoolExecutor(1) as aside:
            orphan = aside.submit(orphan_seconds, target, observer) if arguments.orphan else None
            rows = _user_rows(bench, arguments) + _service_rows(bench, arguments)
            moves = trigger_moves(bench, tasks=arguments.tasks, restarts=arguments.restarts)
        result = {
            **_summary(rows, moves),
            "worst_orphan_seconds": orphan.result() if orphan else "not measured",
            "rows": rows,
            "trigger_moves": moves,
        }
    finally:
        observer.halt()
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        columns = ["path", "operators", "mode", "expected", "happened", "leak_seconds", "jobs"]
        print(table(rows, columns))
        print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2))
    return 0 if result["goals_met"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--modes", nargs="*", default=list(MODES), choices=MODES)
    parser.add_argument("--operators", nargs="*", default=["ours", "stock"], choices=["ours", "stock"])
    names = [*(path.name for path in USER_PATHS), *SERVICE_PATHS, *FAULT_PATHS]
    parser.add_argument("--paths", nargs="*", default=names, choices=names)
    parser.add_argument(
        "--orphan", action=argparse.BooleanOptionalAction, default=True, help="wait for the reaper"
    )
    parser.add_argument("--tasks", type=int, default=20, help="deferred tasks that are moved")
    parser.add_argument("--restarts", type=int, default=10, help="restarts of the triggerer under them")
    return parser.parse_args()


def _user_rows(bench: Bench, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for who in arguments.operators:
        for mode in arguments.modes:
            say(
                f"· {who}, {mode}: {', '.join(path.name for path in USER_PATHS if path.name in arguments.paths)}"
            )
            found = run_user_paths(bench, who, mode, arguments.paths)
            for row in found:
                say(f"  {json.dumps(row)}")
            rows += found
    return rows


def _service_rows(bench: Bench, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    modes = [(who, mode) for who in arguments.operators for mode in arguments.modes]
    for name in (*SERVICE_PATHS, *FAULT_PATHS):
        if name not in arguments.paths:
            continue
        say(f"· {name}")
        seconds = LOST_WORKER_SECONDS if name == "worker killed" else SERVICE_JOB_SECONDS
        run = run_fault_path if name in FAULT_PATHS else run_service_path
        found = run(bench, name, seconds, modes)
        for row in found:
            say(f"  {json.dumps(row)}")
        rows += found
    return rows


def trigger_moves(bench: Bench, *, tasks: int, restarts: int) -> dict[str, Any]:
    """Restart the triggerer under deferred tasks: how many jobs were stopped that should have gone on."""
    if not tasks or not restarts:
        return {"moves": 0, "wrong_stops": 0}
    say(f"· {tasks} deferred tasks, {restarts} restarts of the triggerer")
    runs = [bench.start(MOVED_DAG, 1500) for _ in range(tasks)]
    earlier: set[int | None] = {None}
    held = _held_by_another(bench, runs, earlier)
    for number in range(restarts):
        earlier |= held
        bench.restart_triggerer(abrupt=number % 2 == 1)
        held = _held_by_another(bench, runs, earlier)
        time.sleep(MOVE_SETTLE_SECONDS)
        stopped = sum(job.left_at is not None for run in runs for job in bench.observer.of(run))
        say(f"  restart {number + 1}: triggerers {held} hold every trigger, {stopped} jobs stopped")
    jobs = [job for run in runs for job in bench.observer.of(run)]
    wrong = sum(job.left_at is not None for job in jobs)
    for run in runs:
        bench.airflow.mark(MOVED_DAG, run, "failed")
    wait_for(lambda: all(job.left_at for run in runs for job in bench.observer.of(run)), seconds=60)
    left = [job for run in runs for job in bench.observer.of(run) if job.left_at is None]
    for job in left:
        bench.observer.stop(job)
    return {
        "moves": tasks * restarts,
        "wrong_stops": wrong,
        "extra_jobs": len(jobs) - tasks,
        "left_running_when_all_were_marked_failed": len(left),
    }


def _held_by_another(bench: Bench, runs: list[str], earlier: set[int | None]) -> set[int | None]:
    """Wait until triggerers that were not there before hold every trigger; returns their ids."""
    held: set[int | None] = set()

    def moved() -> bool:
        nonlocal held
        held = {bench.airflow.triggerer_of(MOVED_DAG, run) for run in runs}
        return not held & earlier

    if not wait_for(moved, seconds=MOVE_SECONDS):
        raise TimeoutError(f"after {MOVE_SECONDS} s triggerers {held & earlier} still hold triggers")
    return held


def _summary(rows: list[dict[str, Any]], moves: dict[str, Any]) -> dict[str, Any]:
    """The figures by whose operators they are, and whether ours meet the goals."""
    figures: dict[str, Any] = {}
    for who in sorted({row["operators"] for row in rows}):
        mine = [row for row in rows if row["operators"] == who]
        stops = [row for row in mine if row["expected"] == "stop" or row["path"] == "clear while running"]
        leaks = [row["leak_seconds"] for row in stops if row.get("leak_seconds") is not None]
        figures[who] = {
            "worst_owned_leak_seconds": max(leaks, default=0.0),
            "never_stopped": sum(row["happened"] == "leak" for row in stops),
            "jobs_paid_twice": sum(row.get("paid_twice", 0) for row in mine),
            "wrong_stops": sum(row.get("wrong_stops", 0) for row in mine),
            "as_expected": sum(row["happened"] == row["expected"] for row in mine),
            "paths": len(mine),
        }
    ours = figures.get("ours", {})
    met = (
        ours.get("worst_owned_leak_seconds", 0) <= MOST_LEAK_SECONDS
        and not ours.get("never_stopped")
        and not ours.get("jobs_paid_twice")
        and not ours.get("wrong_stops")
        and ours.get("as_expected") == ours.get("paths")
        and not moves["wrong_stops"]
        and not moves.get("left_running_when_all_were_marked_failed")
    )
    return {"goals_met": met, "figures": figures}


if __name__ == "__main__":
    sys.exit(main())
