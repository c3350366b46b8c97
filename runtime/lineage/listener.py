"""What Airflow tells of DAG runs and tasks, put on the spool: a hook costs a small file and never fails anything.

Task hooks run in the task's own process, and in the scheduler or the API server where those end a task; DAG run hooks
in the scheduler, and in the API server for a run that is marked by hand.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable
from typing import Any

from airflow.listeners import hookimpl

from runtime.lineage import events, exporter, names
from runtime.lineage.spool import Spool

log = logging.getLogger(__name__)


def never_raises(hook: Callable[..., None]) -> Callable[..., None]:
    """Whatever goes wrong with lineage is one line in the log."""

    @functools.wraps(hook)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            log.warning("lineage: not recorded: %s: %s", type(error).__name__, error)

    return guarded


@hookimpl
@never_raises
def on_dag_run_running(dag_run: Any) -> None:
    """A DAG run starts, or goes on after a clear."""
    _from_service(events.dag_run_event(dag_run, "running"))


@hookimpl
@never_raises
def on_dag_run_success(dag_run: Any) -> None:
    """A DAG run ended well."""
    _from_service(events.dag_run_event(dag_run, "success"))


@hookimpl
@never_raises
def on_dag_run_failed(dag_run: Any) -> None:
    """A DAG run failed."""
    _from_service(events.dag_run_event(dag_run, "failed"))


@hookimpl
@never_raises
def on_task_instance_running(task_instance: Any) -> None:
    """A try starts, or goes on after a deferral."""
    _of_task(task_instance, "running")
    if _is_own_process(task_instance):
        # MLflow's own client gives these tags to every run that the task makes.
        tags = events.context_tags(task_instance) | {
            names.DAG_RUN_KEY: names.dag_run_key(task_instance.dag_id, task_instance.run_id)
        }
        os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(tags)


@hookimpl
@never_raises
def on_task_instance_success(task_instance: Any) -> None:
    """A try ended well."""
    _of_task(task_instance, "success")


@hookimpl
@never_raises
def on_task_instance_skipped(task_instance: Any) -> None:
    """A task skipped itself."""
    _of_task(task_instance, "skipped")


@hookimpl
@never_raises
def on_task_instance_failed(task_instance: Any) -> None:
    """A try failed; there may be another one."""
    state = str(getattr(task_instance.state, "value", task_instance.state))
    _of_task(task_instance, state if state == "up_for_retry" else "failed")


@hookimpl
@never_raises
def before_stopping() -> None:
    """A service ends: what waits is handed over, for a few seconds at most."""
    exporter.stop()


def _of_task(instance: Any, state: str) -> None:
    event = events.task_event(instance, state)
    if _is_own_process(instance):
        # The worker that this process is of has the exporter.
        put(event)
    else:
        _from_service(event)


def _is_own_process(instance: Any) -> bool:
    """Whether this is the task's own process, and not a service that ended it."""
    return hasattr(instance, "bundle_instance")


def _from_service(event: events.Event) -> None:
    put(event)
    exporter.ensure_running()


def put(event: events.Event) -> None:
    """Put an event on the spool of this container; one that is full keeps what it has."""
    if not Spool().put(event):
        log.warning("lineage: dropped, because %s events already wait for the tracking server", Spool().most)
