"""Runs every operator and sensor of the provider's two SageMaker modules: `… run_operators.py RESULTS`.

Writes what each one did in each of its modes. A class of the modules that no case knows is among them.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
import traceback
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow.providers.amazon.aws.operators import sagemaker as operators
from airflow.providers.amazon.aws.sensors import sagemaker as sensors
from airflow.sdk import BaseOperator, BaseSensorOperator
from botocore.exceptions import ClientError

from tests.provider.with_airflow import harness, hosting_cases, job_cases, other_cases
from tests.provider.with_airflow.harness import Check, register, takes_deferrable

assert hosting_cases, job_cases
assert other_cases
# They wait most of the time.
AT_ONCE = 8


def published(module: ModuleType) -> list[type]:
    """The operators and sensors of a module that are meant to be used."""
    return [
        each
        for name, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and issubclass(each, BaseOperator) and "Base" not in name
    ]


def modes_of(operator: type) -> list[str]:
    waits = ["poke", "reschedule"] if issubclass(operator, BaseSensorOperator) else ["sync"]
    return [*waits, *(["deferrable"] if takes_deferrable(operator) else [])]


def outcome_of(check: Check, mode: str) -> dict[str, Any]:
    """`passes`, the operation that the host `refused` as one that it doesn't have, or what `failed`."""
    started = time.monotonic()
    try:
        check(mode)
        outcome: dict[str, Any] = {"outcome": "passes"}
    except ClientError as error:
        unknown = error.response["Error"]["Code"] == "UnknownOperationException"
        outcome = (
            {"outcome": "refused", "operation": error.operation_name}
            if unknown
            else {"outcome": "failed", "error": traceback.format_exc()}
        )
    except Exception:
        outcome = {"outcome": "failed", "error": traceback.format_exc()}
    outcome |= {"case": check.__name__, "seconds": round(time.monotonic() - started, 1)}
    # The log of a run that never ends says how far it came.
    print(mode, outcome, flush=True)
    return outcome


def main(results: Path) -> None:
    """Run all cases, several at once."""
    harness.hurry()
    for service in ("sagemaker", "s3", "sagemaker-runtime"):
        harness.client(service)
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [
            (operator, modes, pool.submit(outcome_of, check, modes[0]))
            for operator, modes, check in register.cases
        ]
        for operator, modes, future in running:
            for mode in modes:
                found[operator.__name__, mode].append(future.result())
    for operator in [*published(operators), *published(sensors)]:
        for mode in modes_of(operator):
            found[operator.__name__, mode] += []
    rows = [{"operator": name, "mode": mode, "cases": cases} for (name, mode), cases in found.items()]
    results.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
