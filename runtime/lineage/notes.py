"""What only a task's own code knows: `note` adds it to the task's run on the MLflow server."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

log = logging.getLogger(__name__)


def note_model_package(arn: str) -> None:
    """Say that the task that calls it registered this version of a SageMaker model package group."""
    group, _, version = arn.rpartition("/")
    note(tags={"model_package_arn": arn, "model_name": group.rpartition("/")[2], "model_version": version})


def note(
    *,
    tags: Mapping[str, object] | None = None,
    metrics: Mapping[str, float] | None = None,
    sources: Iterable[str] = (),
    destinations: Iterable[str] = (),
    instance: Any = None,
) -> None:
    """Add tags, metrics, and the URIs of what was read and written to the run of the task that calls it.

    For what `inlets` and `outlets` can't say because it has another name in each run. Places are measured when this is
    called, so call it when they are written. `model_package_arn`, `model_name` and `model_version` are also set on the
    DAG run's. A metric that is infinite or no number at all (NaN) is left out, which the task's log says: the server
    takes none. Costs a small file, and never raises; where tracking is off it does nothing.

    :param instance: the task instance, where there is no current context
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    try:
        from runtime.lineage import events, listener

        if instance is None:
            from airflow.sdk import get_current_context

            instance = get_current_context()["ti"]
        values = {key: float(value) for key, value in (metrics or {}).items()}
        if odd := [f"{key} is {value}" for key, value in values.items() if not math.isfinite(value)]:
            log.warning("lineage: metrics have to be finite numbers, left out: %s", ", ".join(odd))
        listener.put(
            {
                "kind": "note",
                **events.identity(instance),
                "start_ms": events.milliseconds(instance.start_date) or events.now_ms(),
                "tags": {key: str(value) for key, value in (tags or {}).items()},
                "metrics": {key: value for key, value in values.items() if math.isfinite(value)},
                "sources": [events.place(uri) for uri in sources],
                "destinations": [events.place(uri) for uri in destinations],
            }
        )
    except Exception as error:
        log.warning("lineage: not noted: %s: %s", type(error).__name__, error)
