"""Events as runs on the MLflow server: an experiment for each DAG, a run for each DAG run, nested ones for tries.

A run is found again by its key, from any process and after any restart. Two exporters that look for the same one take
turns by a lock in Airflow's database: MLflow itself has nothing that would keep two runs of one key apart.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from runtime import metadata
from runtime.lineage import names
from runtime.lineage.events import deployment_tags
from runtime.lineage.tracking import Tracking, TrackingRefusedError, TrackingUnavailableError

log = logging.getLogger("runtime.lineage")

LOCK_TIMEOUT = "5s"
MOST_REMEMBERED = 2_000
LONGEST_SOURCE_BYTES = 1_000_000
# An asset's numbers, its URI left out.
Measure = Callable[[str], Mapping[str, float]]
Lock = Callable[[str], AbstractContextManager[None]]
TaskStates = Callable[[str, str], dict[str, tuple[str, int | None]]]


@contextmanager
def database_lock(key: str) -> Iterator[None]:
    """Only one exporter at a time; raises TrackingUnavailableError where the database can't give it."""
    try:
        with metadata.connect() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
                cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"lineage {key}",))
            # The lock goes with the connection.
            yield
    except psycopg2.Error as error:
        raise TrackingUnavailableError(f"no lock from Airflow's database: {error}") from error


def task_states(dag_id: str, run_id: str) -> dict[str, tuple[str, int | None]]:
    """State and end (in milliseconds) of each task instance's last try, by the key of its run."""
    query = (
        "SELECT task_id, map_index, try_number, state, (extract(epoch FROM end_date) * 1000)::bigint"
        " FROM task_instance WHERE dag_id = %s AND run_id = %s"
    )
    try:
        with metadata.connect() as connection, connection.cursor() as cursor:
            cursor.execute(query, (dag_id, run_id))
            rows = cursor.fetchall()
    except psycopg2.Error as error:
        raise TrackingUnavailableError(f"Airflow's database: {error}") from error
    found = {}
    for task_id, map_index, try_number, state, end_ms in rows:
        who = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        found[names.task_key(who | {"try_number": try_number})] = (state or "none", end_ms)
    return found


class Recorder:
    """`record` takes events in any order and as often as they come."""

    def __init__(
        self,
        tracking: Tracking,
        *,
        measure: Measure,
        lock: Lock = database_lock,
        states: TaskStates = task_states,
    ) -> None:
        self._tracking = tracking
        self._measure = measure
        self._lock = lock
        self._states = states
        self._run_ids: OrderedDict[str, str] = OrderedDict()

    def record(self, event: Mapping[str, Any]) -> None:
        """Record one event; raises TrackingUnavailableError when it should come again."""
        {"dag_run": self._dag_run, "task": self._task, "note": self._note}[event["kind"]](event)

    # DAG runs

    def _dag_run(self, event: Mapping[str, Any]) -> None:
        run_id = self._dag_run_id(event)
        tags = {**_tags(event), "state": event["state"]}
        if event["state"] == "running":
            self._tracking.log(run_id, timestamp_ms=event["start_ms"], tags=tags)
            # A cleared run goes on.
            self._tracking.update_run(run_id, status="RUNNING")
            self._log_params(run_id, event.get("params", {}))
            self._put_artifacts(run_id, event)
            return
        states = self._states(event["dag_id"], event["run_id"])
        counts: dict[str, float] = {}
        for state, _ in states.values():
            counts[f"tasks/{state}"] = counts.get(f"tasks/{state}", 0) + 1
        self._tracking.log(
            run_id,
            timestamp_ms=event["end_ms"],
            tags=tags,
            metrics={"duration_seconds": (event["end_ms"] - event["start_ms"]) / 1000, **counts},
        )
        self._end_open_tries(run_id, event, states)
        self._tracking.update_run(run_id, status=names.STATUSES[event["state"]], end_ms=event["end_ms"])

    def _put_artifacts(self, run_id: str, event: Mapping[str, Any]) -> None:
        if "graph" not in event:
            return
        run = self._tracking.run(run_id)
        self._tracking.put_text(run, "dag/graph.mmd", event["graph"])
        if (source := _source(event)) is not None:
            self._tracking.put_text(run, f"dag/{source.name}", source.read_text(errors="replace"))

    def _end_open_tries(
        self, run_id: str, event: Mapping[str, Any], states: Mapping[str, tuple[str, int | None]]
    ) -> None:
        """A worker that was lost, or a user who marked the run, left runs that nobody else ends."""
        experiment = self._tracking.experiment(event["dag_id"])
        key = names.dag_run_key(event["dag_id"], event["run_id"])
        wanted = f"tags.{names.DAG_RUN_KEY} = '{key}' and attributes.status = 'RUNNING'"
        for run in list(self._tracking.search([experiment], wanted)):
            tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
            # Neither the DAG run's own, nor what a task has made itself.
            if run["info"]["run_id"] == run_id or names.KEY not in tags:
                continue
            state, end_ms = states.get(tags[names.KEY], ("failed", None))
            end_ms = end_ms or event["end_ms"]
            status = names.STATUSES.get(state)
            # One that still is what it was when the run was marked is about to be ended, and told by itself.
            if status is not None:
                self._tracking.log(run["info"]["run_id"], timestamp_ms=end_ms, tags={"state": state})
            self._tracking.update_run(run["info"]["run_id"], status=status or "KILLED", end_ms=end_ms)

    # Tasks

    def _task(self, event: Mapping[str, Any]) -> None:
        run_id = self._task_run_id(event)
        if event["state"] == "running":
            return
        end_ms = event["end_ms"]
        # What a failed task leaves behind may be anything.
        self._log_places(run_id, event, timestamp_ms=end_ms, measured=event["state"] == "success")
        self._tracking.log(
            run_id,
            timestamp_ms=end_ms,
            tags={**_tags(event), "state": event["state"]},
            metrics={"duration_seconds": (end_ms - event["start_ms"]) / 1000},
        )
        self._tracking.update_run(run_id, status=names.STATUSES[event["state"]], end_ms=end_ms)

    def _note(self, event: Mapping[str, Any]) -> None:
        run_id = self._task_run_id(event)
        self._tracking.log(
            run_id, timestamp_ms=event["start_ms"], tags=event["tags"], metrics=event["metrics"]
        )
        self._log_places(run_id, event, timestamp_ms=event["start_ms"], measured=True)
        if shared := {key: event["tags"][key] for key in names.MODEL_TAGS if key in event["tags"]}:
            self._tracking.log(self._dag_run_id(event), timestamp_ms=event["start_ms"], tags=shared)

    def _log_places(
        self, run_id: str, event: Mapping[str, Any], *, timestamp_ms: int, measured: bool
    ) -> None:
        params: dict[str, str] = {}
        metrics: dict[str, float] = {}
        unmeasured: list[str] = []
        for role in ("source", "destination"):
            for place in event[f"{role}s"]:
                label = f"{role}/{place['name']}"
                params[label] = place["uri"]
                if not measured:
                    continue
                try:
                    numbers = self._measure(place["uri"])
                except Exception as error:
                    # Whatever an asset's home answers: the run is recorded without its numbers.
                    unmeasured.append(f"{label}: {type(error).__name__}: {error}")
                    continue
                metrics |= {f"{label}/{name}": value for name, value in numbers.items()}
        self._log_params(run_id, params)
        tags = {"unmeasured": "; ".join(unmeasured)} if unmeasured else {}
        self._tracking.log(run_id, timestamp_ms=timestamp_ms, metrics=metrics, tags=tags)

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        try:
            self._tracking.log_params(run_id, params)
        except TrackingRefusedError as error:
            # They never change: of a run that was deleted and made again, the first ones stay.
            log.warning("lineage: parameters of run %s: %s", run_id, error)

    # Runs by their keys

    def _dag_run_id(self, event: Mapping[str, Any]) -> str:
        key = names.dag_run_key(event["dag_id"], event["run_id"])
        tags = {"pipeline": event["dag_id"], "dag_id": event["dag_id"], "run_id": event["run_id"]}
        return self._run_id(event, key, tags, name=event["run_id"])

    def _task_run_id(self, event: Mapping[str, Any]) -> str:
        key = names.task_key(dict(event))
        if key in self._run_ids:
            return self._run_ids[key]
        parent = self._dag_run_id(event)
        name = event["task_id"] + (f"[{event['map_index']}]" if event["map_index"] >= 0 else "")
        if event["try_number"] > 1:
            name += f" (try {event['try_number']})"
        tags = {
            "pipeline": event["dag_id"],
            **{each: str(event[each]) for each in ("dag_id", "run_id", "task_id", "map_index", "try_number")},
            **_tags(event),
            names.PARENT: parent,
        }
        return self._run_id(event, key, tags, name=name)

    def _run_id(self, event: Mapping[str, Any], key: str, tags: Mapping[str, str], *, name: str) -> str:
        if key in self._run_ids:
            self._run_ids.move_to_end(key)
            return self._run_ids[key]
        experiment = self._tracking.experiment(event["dag_id"])
        own = {
            **tags,
            **deployment_tags(),
            names.KEY: key,
            names.DAG_RUN_KEY: names.dag_run_key(event["dag_id"], event["run_id"]),
            "state": event.get("state", "running"),
        }
        with self._lock(key):
            known = next(self._tracking.search([experiment], f"tags.{names.KEY} = '{key}'"), None)
            found = (
                known["info"]["run_id"]
                if known
                else self._tracking.create_run(experiment, name=name, start_ms=event["start_ms"], tags=own)
            )
        self._run_ids[key] = found
        if len(self._run_ids) > MOST_REMEMBERED:
            self._run_ids.popitem(last=False)
        return found


def _tags(event: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in event["tags"].items() if value is not None}


def _source(event: Mapping[str, Any]) -> Path | None:
    """The DAG's file in the release that the run began with."""
    version, file = event["tags"].get("bundle_version"), event.get("file")
    if not version or not file:
        return None
    path = Path(os.environ["UPDRAFT_RELEASES_DIRECTORY"]) / version / file
    return path if path.is_file() and path.stat().st_size <= LONGEST_SOURCE_BYTES else None
