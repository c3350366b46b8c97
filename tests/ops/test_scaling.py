"""`scale explain` reads the load metric's own log; `scale simulate` replays a history with the queue's bounds."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops import scaling
from ops.console import OperatorError
from stacks.sizes import Worker

WORKER = Worker(cpu=1024, memory_mib=4096, concurrency=4, min=0, max=3, start_seconds=30)
NOW = 1_800_000_000.0


def sample(queue: str = "default", **values: Any) -> str:
    metrics = {
        "QueuedTasks": 9, "RunningTasks": 1, "ExpectedTasks": 2, "LiveWorkers": 1, "StartingWorkers": 0,
        "Slots": 4, "WantedWorkers": 3,
    }  # fmt: skip
    return json.dumps(
        {
            "sample": {
                "at": NOW,
                "queue": queue,
                "metrics": metrics,
                "wanted": 3,
                "start": 2,
                "reason": "why",
            }
            | values
        }
    )


def target(messages: list[str] | None = None, tasks: list[dict[str, Any]] | None = None) -> Any:
    asked: list[dict[str, Any]] = []

    def paginate(**request: Any) -> list[dict[str, Any]]:
        asked.append(request)
        return [{"events": [{"message": text, "timestamp": NOW * 1000} for text in messages or []]}]

    logs = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=paginate))
    airflow = SimpleNamespace(task_history=lambda *_: iter(tasks or []))
    return SimpleNamespace(
        name="test",
        config=SimpleNamespace(workers={"default": WORKER}),
        output=lambda *_: "group",
        client=lambda _: logs,
        airflow=lambda: airflow,
        asked=asked,
    )


def test_explain_shows_samples_and_failures_of_one_queue() -> None:
    found = target(
        [
            sample(),
            sample(queue="gpu"),
            '{"failed_sample": "TimeoutError: late"}',
            '{"failed_sample": "refused", "queue": "default"}',
            '{"failed_sample": "refused", "queue": "gpu"}',
            "START RequestId",
            "{not json",
        ]
    )
    rows = scaling.explain(found, "default", minutes=5, now=NOW)
    assert [row["reason"] for row in rows] == ["why", "TimeoutError: late", "refused"]
    assert rows[0]["at"] == "2027-01-15T08:00:00Z"
    assert (rows[0]["queued"], rows[0]["expected"], rows[0]["wanted"], rows[0]["started"]) == (9, 2, 3, 2)
    assert found.asked == [{"logGroupName": "group", "startTime": int((NOW - 300) * 1000)}]


def test_unknown_queue_is_told_with_the_known_ones() -> None:
    for call in (
        lambda: scaling.explain(target(), "gpu", minutes=5),
        lambda: scaling.simulate(target(), "gpu", Path("x"), None),
    ):
        with pytest.raises(OperatorError, match="no queue 'gpu' in 'test': there are default"):
            call()


def task(run_id: str, queued: str | None, duration: float | None) -> dict[str, Any]:
    return {"dag_id": "etl", "dag_run_id": run_id, "queued_when": queued, "duration": duration}


def test_database_is_written_as_a_history_and_replayed(tmp_path: Path) -> None:
    found = target(
        tasks=[
            task("scheduled__2026-01-01", "2026-01-01T00:00:00Z", 20.0),
            task("manual__1", "2026-01-01T00:10:00Z", 30.0),
            task("manual__2", None, None),
        ]
    )
    file = tmp_path / "history.csv"
    assert scaling.write_history(found, "default", days=1, file=file, now=NOW) == 2
    assert [row["scheduled"] for row in csv.DictReader(file.read_text().splitlines())] == ["true", "false"]
    drawing = tmp_path / "load.svg"
    result = scaling.simulate(found, "default", file, drawing)
    assert (result["runs"], result["tasks"]) == (2, 2)
    assert result["rules"]["updraft"]["killed_tasks"] == 0
    assert set(result["rules"]) == {"updraft", "mwaa", "keda", "turbine"}
    assert drawing.read_text().startswith("<svg")


def test_empty_database_and_broken_history_are_told(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="ran no task since"):
        scaling.write_history(target(), "default", days=1, file=tmp_path / "x.csv", now=NOW)
    with pytest.raises(OperatorError, match="can't be read"):
        scaling.simulate(target(), "default", tmp_path / "absent.csv", None)
