"""Reads the logs of services from CloudWatch and those of DAG runs from Airflow, once or as they grow."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ops.airflow_api import FINISHED_STATES, AirflowApi
from ops.console import OperatorError
from ops.target import Target

POLL_SECONDS = 2.0
# CloudWatch sorts late events in: they are looked for this far back.
LATE_MILLISECONDS = 30_000
STREAMS = 3
HEADER = ("::group::Log message source details", "::endgroup::")
WRITTEN_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
INTERRUPTED = 130


class Source(Protocol):
    """Something that has log lines."""

    def newest(self, lines: int) -> list[str]:
        """The last lines that there are now, at most this many."""

    def more(self) -> list[str] | None:
        """The lines that have come since the last call of either; None when there will be no more."""


def source_of(target: Target, what: str | None, run: str | None) -> Source:
    """What a service's name, a run id or `DAG/RUN_ID[/TASK]` stands for; raises OperatorError for anything else."""
    if run is not None:
        dag_id, _, rest = run.partition("/")
        run_id, _, task_id = rest.partition("/")
        if not (dag_id and run_id):
            raise OperatorError(f"--run {run}: wants DAG/RUN_ID or DAG/RUN_ID/TASK")
        airflow = target.airflow()
        airflow.run(dag_id, run_id)
        return RunLog(airflow, dag_id, run_id, task_id or None)
    assert what is not None
    target.output("airflow", "ClusterName")  # says in plain words when there is no platform
    group = f"/{target.config.project}/{target.name}/{what}"
    client = target.client("logs")
    if any(
        item["logGroupName"] == group
        for item in client.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    ):
        return ServiceLog(client, group)
    airflow = target.airflow()
    for dag in airflow.dags():
        try:
            airflow.run(dag["dag_id"], what)
        except OperatorError:
            continue
        return RunLog(airflow, dag["dag_id"], what, None)
    raise OperatorError(
        f"'{what}' is neither a service (scheduler, webserver, worker-default, …) nor a run of any DAG"
    )


class ServiceLog:
    """A log group of CloudWatch."""

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group
        self._since = 0
        self._told: dict[str, int] = {}

    def newest(self, lines: int) -> list[str]:
        """From the few streams that were written last."""
        # Before the look: what is written meanwhile comes with the first `more`.
        self._since = int(time.time() * 1000)
        streams = self._client.describe_log_streams(
            logGroupName=self._group, orderBy="LastEventTime", descending=True, limit=STREAMS
        )
        events = []
        for stream in streams["logStreams"]:
            answer = self._client.get_log_events(
                logGroupName=self._group, logStreamName=stream["logStreamName"], limit=min(lines, 10_000)
            )
            events += [event for event in answer["events"] if event["timestamp"] < self._since]
        events.sort(key=lambda event: event["timestamp"])
        return [event["message"].rstrip() for event in events[-lines:]]

    def more(self) -> list[str]:
        """From every stream, each event once."""
        pages = self._client.get_paginator("filter_log_events").paginate(
            logGroupName=self._group, startTime=max(self._since, self._newest_told() - LATE_MILLISECONDS)
        )
        events = [event for page in pages for event in page["events"] if event["eventId"] not in self._told]
        self._told |= {event["eventId"]: event["timestamp"] for event in events}
        horizon = self._newest_told() - LATE_MILLISECONDS
        self._told = {name: told for name, told in self._told.items() if told >= horizon}
        events.sort(key=lambda event: event["timestamp"])
        return [event["message"].rstrip() for event in events]

    def _newest_told(self) -> int:
        return max(self._told.values(), default=0)


@dataclass(frozen=True)
class _Try:
    """One try of one task instance."""

    task_id: str
    map_index: int
    number: int

    @property
    def label(self) -> str:
        return self.task_id + (f"[{self.map_index}]" if self.map_index >= 0 else "")


class RunLog:
    """The task logs of a DAG run, through Airflow, which reads them from S3 or from the worker."""

    def __init__(self, airflow: AirflowApi, dag_id: str, run_id: str, task_id: str | None) -> None:
        self._airflow = airflow
        self._dag_id = dag_id
        self._run_id = run_id
        self._task_id = task_id
        self._told: dict[_Try, Counter[str]] = {}
        self._complete: set[_Try] = set()
        self._ended = False

    def newest(self, lines: int) -> list[str]:
        """The tasks in the order of their start."""
        return self._look()[-lines:]

    def more(self) -> list[str] | None:
        """None once the run has ended and its last lines were told."""
        return None if self._ended else self._look()

    def _look(self) -> list[str]:
        # In this order: a run that has ended by now writes nothing after its tasks are looked at.
        self._ended = self._airflow.run(self._dag_id, self._run_id)["state"] in FINISHED_STATES
        tasks = self._airflow.task_instances(self._dag_id, self._run_id)
        if self._task_id is not None:
            known = sorted({task["task_id"] for task in tasks})
            tasks = [task for task in tasks if task["task_id"] == self._task_id]
            if not tasks:
                raise OperatorError(
                    f"{self._run_id} has no task '{self._task_id}'; it has {', '.join(known)}"
                )
        started = [task for task in tasks if task["try_number"] and task["start_date"]]
        started.sort(key=lambda task: str(task["start_date"]))
        return [line for task in started for line in self._new_lines(task)]

    def _new_lines(self, task: dict[str, Any]) -> list[str]:
        """Every try's lines that were not told before."""
        new = []
        for number in range(1, task["try_number"] + 1):
            this = _Try(task["task_id"], task["map_index"], number)
            if this not in self._complete:
                # Airflow keeps no record of a try that was given back before it began.
                with contextlib.suppress(*([OperatorError] if number < task["try_number"] else [])):
                    new += self._of_one_try(this)
            if number < task["try_number"] or task["state"] in WRITTEN_STATES:
                self._complete.add(this)
        return new

    def _of_one_try(self, this: _Try) -> list[str]:
        # Compared line by line: what was read from the worker comes in another order from S3.
        read = self._airflow.task_log(
            self._dag_id, self._run_id, this.task_id, this.number, map_index=this.map_index
        )
        told = self._told.setdefault(this, Counter())
        left = told.copy()
        new = []
        for line in _without_header(list(read)):
            if left[line]:
                left[line] -= 1
            else:
                new.append(line)
        told.update(new)
        return [f"{this.label} | {line}" for line in new]


def _without_header(lines: list[str]) -> list[str]:
    """Leave out where the lines were read from: it changes between two looks."""
    if lines and lines[0] == HEADER[0] and HEADER[1] in lines:
        return lines[lines.index(HEADER[1]) + 1 :]
    return lines


def follow(source: Source, *, lines: int, poll_seconds: float = POLL_SECONDS) -> Iterator[str]:
    """The newest lines, then every new one until there will be no more."""
    yield from source.newest(lines)
    while (new := source.more()) is not None:
        yield from new
        time.sleep(poll_seconds)


def print_until_stopped(lines: Iterator[str]) -> int:
    """Print each line at once; returns the exit code: 0 at the end, 130 after Ctrl-C, 0 when nobody reads on."""
    try:
        for line in lines:
            print(line, flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain at its exit about what is left in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
