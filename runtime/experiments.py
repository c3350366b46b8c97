"""Runs and models of pipelines in MLflow, through its own client.

Where an environment has no tracking server, nothing is recorded, one line of the task's log says so, and every
function answers with None. Repeating a task records nothing twice: a run is found again by its key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from runtime.settings import tags as job_tags

log = logging.getLogger(__name__)

KEY = "updraft:key"
PARENT = "mlflow.parentRunId"


def start_run(
    context: Mapping[str, Any],
    *,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    parent_id: str | None = None,
) -> str | None:
    """The id of this task instance's run of that name, made unless it is there; with `parent_id` a child of that run."""
    client = _client()
    if client is None:
        return None
    instance = context["ti"]
    identity = json.dumps([instance.dag_id, instance.run_id, instance.task_id, instance.map_index, name])
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    experiment_id = _experiment_id(client, experiment)
    found = client.search_runs([experiment_id], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        # What MLflow's fluent API adds by itself: the task and DAG run that lineage finds the run by.
        origin: dict[str, str] = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT", "{}"))
        tags = origin | {item["Key"]: item["Value"] for item in job_tags(context)} | {KEY: key}
        tags |= {PARENT: parent_id} if parent_id else {}
        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
    record(run_id, parameters=parameters or {})
    return run_id


def record(
    run_id: str | None,
    *,
    parameters: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Add what is known by now to a run."""
    client = _client() if run_id else None
    if client is None:
        return
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()],
        params=[Param(key, str(value)) for key, value in (parameters or {}).items()],
        tags=[RunTag(key, str(value)) for key, value in (tags or {}).items()],
    )


def end_run(run_id: str | None, *, succeeded: bool = True) -> None:
    """Close a run."""
    client = _client() if run_id else None
    if client is not None:
        client.set_terminated(run_id, status="FINISHED" if succeeded else "FAILED")


def register_model(
    run_id: str | None, *, name: str, source: str, tags: Mapping[str, str], description: str
) -> str | None:
    """The version of a run's model in the registry, made unless it is there; `source` is where its files lie.

    A run that was repeated after a clear may have made another model, which is another version.
    """
    client = _client() if run_id else None
    if client is None:
        return None
    from mlflow.exceptions import MlflowException

    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    for version in found:
        if version.source == source:
            return str(version.version)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(name, source, run_id=run_id, tags=dict(tags), description=description)
    return str(made.version)


def _client() -> Any:
    """MLflow's client, None where the environment has no tracking server."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        log.info(
            "not recorded in MLflow: this environment has no tracking server ([tracking] enabled = true)"
        )
        return None
    from mlflow import MlflowClient

    return MlflowClient()


def _experiment_id(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException as error:
        # Another task was quicker.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)
