"""Bursts on real processes: `python -m benchmarks.burst --json`, on a local platform that is up.

Each round: 200 short tasks and 20 long ones arrive at once in a queue whose fleet is at zero; while they run, a new
revision of the worker is registered, as a deployment does; then the fleet goes back to zero. Only the deployed
Lambda starts workers, and they leave by themselves. Exits 1 when a task was killed or ran twice, or a fleet stayed
below four or above zero.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests

from ops import delivery
from ops.airflow_api import FINISHED_STATES, AirflowApi
from ops.console import OperatorError, say
from ops.target import Target, target_of

QUEUE = "burst"
LEAST_PEAK = 4
TASKS = 220
# So many tasks of a round have begun before the new revision comes.
FIRST_TASKS = 10
RUN_SECONDS = 900.0
EMPTY_SECONDS = 300.0
DAGS = Path(__file__).parent / "dags"


class Watch:
    """Looks at the fleet every second: how many workers live, and who started them."""

    def __init__(self, target: Target) -> None:
        self._ecs = target.client("ecs")
        self._cluster = target.prefix
        self._family = f"{target.prefix}-worker-{QUEUE}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, int]] = []
        self.started_by: dict[str, str] = {}
        self.revisions: dict[str, str] = {}
        self.exits: dict[str, list[int | None]] = {}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            arns = self._ecs.list_tasks(cluster=self._cluster, family=self._family)["taskArns"]
            self.samples.append((time.monotonic(), len(arns)))
            known = sorted({*arns, *(arn for arn in self.started_by if arn not in self.exits)})
            if known:
                for task in self._ecs.describe_tasks(cluster=self._cluster, tasks=known[:100])["tasks"]:
                    self._note(task)

    def _note(self, task: dict[str, Any]) -> None:
        arn = task["taskArn"]
        self.started_by[arn] = task["startedBy"]
        self.revisions[arn] = task["taskDefinitionArn"].rpartition(":")[2]
        if task["lastStatus"] == "STOPPED":
            self.exits[arn] = [container.get("exitCode") for container in task["containers"]]

    def workers(self) -> int:
        """How many live now."""
        return self.samples[-1][1] if self.samples else 0

    def register_revision(self) -> str:
        """A new revision that differs in one variable; workers of the older one are to finish and leave."""
        definition = self._ecs.describe_task_definition(taskDefinition=self._family)["taskDefinition"]
        for key in (
            "taskDefinitionArn",
            "revision",
            "status",
            "registeredAt",
            "compatibilities",
            "requiresAttributes",
            "registeredBy",
        ):
            definition.pop(key, None)
        [container] = definition["containerDefinitions"]
        kept = [pair for pair in container["environment"] if pair["name"] != "UPDRAFT_BENCHMARK"]
        container["environment"] = [*kept, {"name": "UPDRAFT_BENCHMARK", "value": str(time.time_ns())}]
        answer = self._ecs.register_task_definition(**definition)["taskDefinition"]
        return str(answer["revision"])


def main() -> int:
    """Push the DAGs, run the rounds, judge by the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", action="store_true", help="accepted for symmetry: the output is always JSON"
    )
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    target = target_of("local")
    began = time.monotonic()
    delivery.push(target, DAGS)
    ledger = Path(tempfile.mkdtemp(prefix="updraft-burst-")) / "ledger"
    ledger.parent.chmod(0o777)
    with Watch(target) as watch:
        rounds = [one_round(target.airflow(), watch, ledger, number) for number in range(arguments.rounds)]
    result = judge(rounds, watch, ledger) | {"seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(result, indent=2))
    return 0 if all(result["goals"].values()) else 1


def one_round(airflow: AirflowApi, watch: Watch, ledger: Path, number: int) -> dict[str, Any]:
    """One burst, from zero workers to zero."""
    wait_until(lambda: watch.workers() == 0 and bool(watch.samples), EMPTY_SECONDS, "the fleet is not empty")
    began, first = time.monotonic(), len(watch.samples)
    runs = {
        dag_id: airflow.trigger(
            dag_id, {"ledger": str(ledger)}, run_id=f"{dag_id}-{number}-{time.time_ns()}"
        )["dag_run_id"]
        for dag_id in ("burst_long", "burst_short")
    }
    wait_until(lambda: watch.workers() >= LEAST_PEAK, EMPTY_SECONDS, "the fleet did not rise")
    risen = time.monotonic()
    wait_until(lambda: began_tasks(ledger) > number * TASKS + FIRST_TASKS, RUN_SECONDS, "no task began")
    revision = watch.register_revision()
    say(f"round {number}: {watch.workers()} workers; revision {revision} registered")
    states = {dag_id: ended(airflow, dag_id, run_id) for dag_id, run_id in runs.items()}
    finished = time.monotonic()
    wait_until(lambda: watch.workers() == 0, EMPTY_SECONDS, "workers did not leave")
    row = {
        "peak_workers": max(count for _, count in watch.samples[first:]),
        "risen_seconds": round(risen - began, 1),
        "finished_seconds": round(finished - began, 1),
        "empty_seconds": round(time.monotonic() - finished, 1),
        "states": states,
        "tries": max(tries(airflow, dag_id, run_id) for dag_id, run_id in runs.items()),
        "revision": revision,
    }
    say(f"round {number}: {row}")
    return row


def began_tasks(ledger: Path) -> int:
    """How many tasks have begun so far, in every round."""
    return ledger.read_text().count("began ") if ledger.exists() else 0


def ended(airflow: AirflowApi, dag_id: str, run_id: str) -> str:
    """The final state of a run."""
    wait_until(
        lambda: airflow.run(dag_id, run_id)["state"] in FINISHED_STATES, RUN_SECONDS, f"{run_id} does not end"
    )
    return str(airflow.run(dag_id, run_id)["state"])


def tries(airflow: AirflowApi, dag_id: str, run_id: str) -> int:
    """The most tries that a task of a run needed."""
    return max(int(task["try_number"]) for task in airflow.task_instances(dag_id, run_id))


def wait_until(condition: Any, seconds: float, otherwise: str) -> None:
    """Wait for a condition; raises OperatorError past the limit."""
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise OperatorError(f"{otherwise} after {seconds:.0f} s")
        time.sleep(1.0)


def _holds(condition: Any) -> bool:
    """Whether it holds; a webserver that is too busy to answer is asked again."""
    try:
        return bool(condition())
    except requests.RequestException as error:
        say(f"asked again: {error}")
        return False


def judge(rounds: list[dict[str, Any]], watch: Watch, ledger: Path) -> dict[str, Any]:
    """What the ledger, ECS and Airflow say, held against the goals."""
    lines = Counter(ledger.read_text().splitlines())
    began = {line.split()[1]: count for line, count in lines.items() if line.startswith("began ")}
    finished = {line.split()[1]: count for line, count in lines.items() if line.startswith("ended ")}
    killed = sum(count - finished.get(key, 0) for key, count in began.items())
    twice = sum(count > 1 for count in began.values())
    codes = Counter(str(code) for codes in watch.exits.values() for code in codes)
    return {
        "rounds": rounds,
        "tasks": len(began),
        "killed_tasks": killed,
        "tasks_run_twice": twice,
        "workers_started": len(watch.started_by),
        "workers_by_revision": dict(Counter(watch.revisions.values())),
        "exit_codes": dict(codes),
        "goals": {
            "0 killed": killed == 0 and len(finished) == len(began),
            "0 run twice": twice == 0 and all(row["tries"] == 1 for row in rounds),
            "every run succeeds": all(set(row["states"].values()) == {"success"} for row in rounds),
            "0 to 4 or more workers and back in every round": all(
                row["peak_workers"] >= LEAST_PEAK for row in rounds
            ),
            "the deployed Lambda started every worker": set(watch.started_by.values()) == {"load-metric"},
            "every worker left by itself with exit code 0": set(codes) == {"0"},
        },
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as problem:
        print(json.dumps({"error": str(problem)}))
        sys.exit(1)
