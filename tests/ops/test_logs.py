"""Logs as they grow: each line once, whatever the order that they arrive in, until the run's or the reader's end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import logs
from ops.airflow_api import AirflowApi
from ops.console import OperatorError

ROOT = Path(__file__).resolve().parent.parent.parent


def event(number: int, timestamp: int) -> dict[str, Any]:
    return {"eventId": str(number), "timestamp": timestamp, "message": f"line {number}\n"}


def test_service_is_followed_with_each_event_once_and_late_ones_too(target: Any) -> None:
    now = 10**13  # far in the future: newer than the look at the newest lines
    batches = iter(
        [
            [event(1, now), event(2, now + 40_000)],
            [event(2, now + 40_000), event(3, now + 20_000)],
            [event(2, now + 40_000), event(3, now + 20_000)],
        ]
    )
    to = target(
        {
            "DescribeLogStreams": lambda _: {"logStreams": [{"logStreamName": "s"}]},
            "GetLogEvents": lambda _: {"events": [{"timestamp": 1, "message": "old\n"}]},
            "FilterLogEvents": lambda _: {"events": next(batches)},
        }
    )
    source = logs.ServiceLog(to.client("logs"), "/updraft/dev/scheduler")
    assert source.newest(10) == ["old"]
    assert [source.more() for _ in range(3)] == [["line 1", "line 2"], ["line 3"], []]
    asked = to.requests("FilterLogEvents")
    # What is written late is looked for behind what was told last.
    assert asked[1]["startTime"] == now + 40_000 - logs.LATE_MILLISECONDS


class Airflow(AirflowApi):
    """Answers like the API of a run that is looked at several times."""

    def __init__(self, looks: list[dict[str, Any]]) -> None:
        self._looks = iter(looks)
        self._look: dict[str, Any] = {}
        self.read: list[tuple[str, int]] = []

    def run(self, _dag_id: str, _run_id: str) -> dict[str, Any]:
        self._look = next(self._looks)
        return {"state": self._look["run"]}

    def task_instances(self, _dag_id: str, _run_id: str) -> list[dict[str, Any]]:
        return [
            {
                "task_id": name,
                "map_index": -1,
                "try_number": tries,
                "state": state,
                "start_date": "2026-01-01",
            }
            for name, (state, tries, _) in self._look["tasks"].items()
        ]

    def task_log(
        self, _dag_id: str, _run_id: str, task_id: str, number: int, *, map_index: int = -1
    ) -> Iterator[str]:
        assert map_index == -1
        self.read.append((task_id, number))
        if number not in self._look["tasks"][task_id][2]:
            raise OperatorError("Airflow answered 404: TaskInstance not found")
        header = ["::group::Log message source details", f"read from {self._look['from']}", "::endgroup::"]
        return iter([*header, *self._look["tasks"][task_id][2][number]])


def source(looks: list[dict[str, Any]], task: str | None = None) -> logs.RunLog:
    return logs.RunLog(Airflow(looks), "dag", "run", task)


RUNNING = {
    "run": "running",
    "from": "the worker",
    "tasks": {"a": ("running", 1, {1: ["one", "same", "same"]})},
}
# The same log from S3: another order, one line more, and the task's second try.
RETRIED = {
    "run": "running",
    "from": "S3",
    "tasks": {"a": ("running", 2, {1: ["same", "one", "same", "failed"], 2: ["again"]})},
}
ENDED = {
    "run": "success",
    "from": "S3",
    "tasks": {
        "a": ("success", 2, {1: ["same", "one", "same", "failed"], 2: ["again", "done"]}),
        "b": ("success", 1, {1: ["b"]}),
    },
}


def test_run_is_followed_through_its_tries_to_its_end() -> None:
    followed = list(logs.follow(source([RUNNING, RUNNING, RETRIED, ENDED]), lines=100, poll_seconds=0))
    assert followed == [
        "a | one", "a | same", "a | same", "a | failed", "a | again", "a | done", "b | b",
    ]  # fmt: skip


def test_complete_try_is_not_read_again() -> None:
    airflow = Airflow([RETRIED, RETRIED])
    run = logs.RunLog(airflow, "dag", "run", None)
    assert run.newest(2) == ["a | failed", "a | again"]
    assert run.more() == []
    assert airflow.read == [("a", 1), ("a", 2), ("a", 2)]


def test_try_that_airflow_has_no_record_of_is_passed_over() -> None:
    look: dict[str, Any] = {"run": "success", "from": "S3", "tasks": {"a": ("success", 2, {2: ["two"]})}}
    assert source([look]).newest(10) == ["a | two"]
    look["tasks"] = {"a": ("success", 1, {})}
    with pytest.raises(OperatorError, match="TaskInstance not found"):
        source([look]).newest(10)


def test_one_task_of_a_run_is_read_alone() -> None:
    assert source([ENDED], "b").newest(10) == ["b | b"]
    with pytest.raises(OperatorError, match="run has no task 'c'; it has a, b"):
        source([ENDED], "c").newest(10)


@pytest.mark.parametrize("run", ["dag", "dag/", "/run"])
def test_run_without_both_names_is_refused(target: Any, run: str) -> None:
    with pytest.raises(OperatorError, match="wants DAG/RUN_ID"):
        logs.source_of(target({}), None, run)


FOREVER = """
import itertools, sys
from ops.logs import print_until_stopped
sys.exit(print_until_stopped(f"line {number}" for number in itertools.count()))
"""


def forever() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FOREVER],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_a_stream_without_a_word() -> None:
    with forever() as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_reader_that_leaves_ends_a_stream_without_a_word() -> None:
    with forever() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert (process.returncode, errors) == (0, "")
