"""A run takes its DAG's parameters and no others: a misspelt one is refused before there is a run.

Airflow holds what came for a parameter against its type, and takes any further key in silence: a run with a misspelt
name runs with the default. It has no setting for this. Every way into a run (UI, REST, command lines, other DAGs,
backfills) makes a `DagRun` and gives it its DAG's version, so this is where the keys are looked at, and Airflow's own
error for parameters carries the refusal back the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper

DAG_RUN = "airflow.models.dagrun.DagRun"


def watch() -> None:
    """Look at every DAG run that this process makes; Airflow's models are not imported for it."""
    event.listen(Mapper, "mapper_configured", _watch_runs)


def _watch_runs(_mapper: Any, mapped: type) -> None:
    if f"{mapped.__module__}.{mapped.__qualname__}" == DAG_RUN:
        event.listen(mapped.created_dag_version, "set", _check_run)  # type: ignore[attr-defined]


def _check_run(run: Any, version: Any, _previous: Any, _initiator: Any) -> None:
    from airflow.exceptions import ParamValidationError

    if version is None or not run.conf:
        return
    refusal = refuse(run.dag_id, run.conf, list(version.serialized_dag.dag.params))
    if refusal is not None:
        raise ParamValidationError(refusal)


def refuse(dag_id: str, conf: Mapping[str, Any], known: Iterable[str]) -> str | None:
    """Why a `conf` doesn't go with a DAG's parameters, None when it does; a DAG without parameters takes anything."""
    names = sorted(known)
    unknown = [str(key) for key in conf if key not in names]
    if not names or not unknown:
        return None
    near = [match for key in unknown for match in get_close_matches(key, names, n=1)]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return f"{dag_id} has no {', '.join(unknown)}; it has {', '.join(names)}{hint}"
