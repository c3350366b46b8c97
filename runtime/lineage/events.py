"""What is kept of a DAG run and of a task instance when something happens to them; plain JSON, made in no time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Event = dict[str, Any]


def dag_run_event(dag_run: Any, state: str) -> Event:
    """A DAG run as the scheduler has it; its graph and its file go along when it starts."""
    event: Event = {
        "kind": "dag_run",
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "state": state,
        "start_ms": milliseconds(dag_run.start_date) or now_ms(),
        "end_ms": None if state == "running" else milliseconds(dag_run.end_date) or now_ms(),
        "tags": {"bundle_version": dag_run.bundle_version, "run_type": _text(dag_run.run_type)},
    }
    dag = getattr(dag_run, "dag", None)
    if state == "running" and dag is not None:
        given = {name: dag.params[name] for name in dag.params} | (dag_run.conf or {})
        event["params"] = {str(name): _text(value) for name, value in given.items()}
        event["graph"] = mermaid({task.task_id: task.downstream_task_ids for task in dag.tasks})
        event["file"] = dag.relative_fileloc
        event["tags"] |= {"owner": dag.owner, "airflow_tags": ", ".join(sorted(dag.tags))}
    return event


def task_event(instance: Any, state: str) -> Event:
    """A try of a task: `instance` is the task runner's, or the database's where the scheduler or a user ended it."""
    task = getattr(instance, "task", None)
    ended = state not in ("running", "deferred")
    return {
        "kind": "task",
        **identity(instance),
        "state": state,
        "start_ms": milliseconds(instance.start_date) or now_ms(),
        "end_ms": (milliseconds(instance.end_date) or now_ms()) if ended else None,
        "tags": {
            "operator": type(task).__name__
            if hasattr(task, "execute")
            else getattr(instance, "operator", None),
            "bundle_version": bundle_version(instance),
            "owner": getattr(task, "owner", None),
        },
        "sources": _places(getattr(task, "inlets", ())),
        "destinations": _places(getattr(task, "outlets", ())),
    }


def identity(instance: Any) -> Event:
    """Which try of which task instance it is."""
    return {
        "dag_id": instance.dag_id,
        "run_id": instance.run_id,
        "task_id": instance.task_id,
        "map_index": getattr(instance, "map_index", -1),
        "try_number": instance.try_number,
    }


def bundle_version(instance: Any) -> str | None:
    """The release that a task runs on; None in the scheduler, whose DAG run knows it."""
    return getattr(getattr(instance, "bundle_instance", None), "version", None)


def place(uri: str) -> Event:
    """An asset by its URI, and a name that metrics can carry: a table's schema and name, an object's key."""
    rest = uri.partition("://")[2].partition("/")[2].strip("/")
    if uri.startswith("postgres://"):
        rest = ".".join(rest.split("/")[1:])
    return {"name": rest or uri, "uri": uri}


def mermaid(downstream: Mapping[str, Iterable[str]]) -> str:
    """A DAG's graph in Mermaid's language; task ids may hold what its own ids can't."""
    number = {task_id: f"t{index}" for index, task_id in enumerate(downstream)}
    lines = [f'  {number[task_id]}["{task_id}"]' for task_id in downstream]
    lines += [
        f"  {number[before]} --> {number[after]}"
        for before, afters in downstream.items()
        for after in sorted(afters)
        if after in number
    ]
    return "\n".join(["flowchart LR", *lines, ""])


def context_tags(instance: Any) -> dict[str, str]:
    """What every run says about where it comes from."""
    named = identity(instance) | {"bundle_version": bundle_version(instance)}
    return {"pipeline": str(instance.dag_id), **deployment_tags()} | {
        key: str(value) for key, value in named.items() if value is not None
    }


def deployment_tags() -> dict[str, str]:
    """The project and the environment."""
    return {
        "project": os.environ.get("UPDRAFT_PROJECT", ""),
        "environment": os.environ.get("UPDRAFT_ENVIRONMENT", ""),
    }


def _places(assets: Iterable[Any] | None) -> list[Event]:
    # Aliases and references have no address of their own.
    return [place(asset.uri) for asset in assets or () if getattr(asset, "uri", None)]


def milliseconds(moment: datetime | None) -> int | None:
    """MLflow's time."""
    return None if moment is None else round(moment.timestamp() * 1000)


def now_ms() -> int:
    """MLflow's time, now."""
    return round(time.time() * 1000)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
