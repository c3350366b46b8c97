"""What the project's DAGs have in common: how their tasks are retried, and where a run keeps its files."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


def default_args(owner: str, **more: Any) -> dict[str, Any]:
    """The `default_args` of a DAG: who owns its tasks, one retry after ten seconds, and what else is given."""
    return {"owner": owner, "retries": 1, "retry_delay": timedelta(seconds=10), **more}


def run_prefix(folder: str) -> str:
    """Template of the S3 prefix below a folder that belongs to one run alone, `{folder}/{DAG}/{run}`.

    DAGs with the same schedule have runs of the same id. It is written without what URIs have to escape.
    """
    return f"{folder}/{{{{ dag.dag_id }}}}/{{{{ run_id | replace(':', '-') | replace('+', '-') }}}}"
