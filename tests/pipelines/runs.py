"""A run of a DAG on the platform, to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ops.airflow_api import FINISHED_STATES, AirflowApi

RUN_SECONDS = 900


@dataclass(frozen=True)
class Run:
    """How it ended; `tasks` has the state of each task."""

    run_id: str
    state: str
    tasks: dict[str, str]


def run_to_end(
    airflow: AirflowApi, dag_id: str, conf: dict[str, Any], meanwhile: Callable[[], None] = lambda: None
) -> Run:
    """Start a run and wait for its end, doing something each second."""
    run_id = airflow.trigger(dag_id, conf)["dag_run_id"]
    deadline = time.monotonic() + RUN_SECONDS
    while (state := airflow.run(dag_id, run_id)["state"]) not in FINISHED_STATES:
        assert time.monotonic() < deadline, f"{run_id} is still {state}"
        meanwhile()
        time.sleep(1)
    tasks = {each["task_id"]: each["state"] for each in airflow.task_instances(dag_id, run_id)}
    return Run(run_id, state, tasks)
