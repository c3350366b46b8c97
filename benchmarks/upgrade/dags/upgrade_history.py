"""What leaves history of many kinds behind: XComs, mapped tasks, a failure, an asset, a deadline, a secret variable."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AsyncCallback, BaseHook, DeadlineAlert, DeadlineReference, Variable, task


async def too_late(**_context: Any) -> None:
    """Of the deadline, which no run misses."""


@task
def fingerprint() -> dict[str, str]:
    """Digests of what only the right Fernet key decrypts."""
    secrets = {
        "variable": Variable.get("upgrade"),
        "connection": str(BaseHook.get_connection("upgrade").password),
    }
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in secrets.items()}


@task
def square(number: int) -> int:
    """One of three mapped tasks."""
    return number * number


@task(outlets=[Asset("upgrade")])
def end(numbers: list[int], **context: Any) -> int:
    """Add up, or fail where the run's conf says so."""
    if context["params"]["fail"]:
        raise RuntimeError("asked to fail")
    return sum(numbers)


with DAG(
    "upgrade_history",
    schedule=None,
    params={"fail": False},
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=1),
        callback=AsyncCallback("upgrade_history.too_late"),
    ),
):
    fingerprint() >> end(square.expand(number=[1, 2, 3]))
