"""The house rules of DAGs, over what `describe.py` tells of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# What somebody needs to know who has never seen the DAG and is woken up by it.
SECTIONS = ("**Schedule:**", "**Flow:**", "**When it fails:**")
TAG = re.compile(r"[a-z][a-z0-9-]*")
SHORTEST_DOC = 200
LONGEST_RETRY_DELAY_SECONDS = 900


def violations(dag: dict[str, Any]) -> list[str]:
    """Everything in which a DAG breaks the rules, each with its DAG and task."""
    found = [f"{dag['dag_id']}: {text}" for text in _of_dag(dag)]
    for task_id, task in dag["tasks"].items():
        found += [f"{dag['dag_id']}.{task_id}: {text}" for text in _of_task(task, dag["timeout_seconds"])]
    return found


def _of_dag(dag: dict[str, Any]) -> Iterator[str]:
    if dag["owner"] in ("", "airflow"):
        yield f"owner {dag['owner']!r} is nobody; name the team in default_args"
    if not dag["tags"]:
        yield "no tags"
    for tag in dag["tags"]:
        if not TAG.fullmatch(tag):
            yield f"tag {tag!r} is not lower-case letters, digits and hyphens"
    if len(dag["doc"]) < SHORTEST_DOC:
        yield f"doc_md has {len(dag['doc'])} characters, at least {SHORTEST_DOC} are needed"
    for section in SECTIONS:
        if section not in dag["doc"]:
            yield f"doc_md lacks {section}"
    if dag["catchup"]:
        yield "catchup would start a run for every interval of the past"
    if not dag["timeout_seconds"]:
        yield "no dagrun_timeout"
    if not dag["notifies"]:
        yield "nobody is told of a failure: no on_failure_callback"
    for name, schema in dag["params"].items():
        if not schema.get("type"):
            yield f"param {name} has no type"
        if not schema.get("description"):
            yield f"param {name} has no description"


def _of_task(task: dict[str, Any], run_seconds: float | None) -> Iterator[str]:
    if task["retries"] < 1:
        yield "no retries"
    if not 0 < (task["retry_delay_seconds"] or 0) <= LONGEST_RETRY_DELAY_SECONDS:
        yield f"retry_delay is {task['retry_delay_seconds']} s, more than 0 and at most {LONGEST_RETRY_DELAY_SECONDS} are allowed"
    if not task["timeout_seconds"]:
        yield "no execution_timeout"
    elif run_seconds and task["timeout_seconds"] > run_seconds:
        yield f"execution_timeout is {task['timeout_seconds']:.0f} s, the whole run may take {run_seconds:.0f}"
