"""How many workers are wanted, and how they are started."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.load_metric import handler
from lambdas.load_metric.logic import Load, Queue, metric_data, missing_workers, wanted_workers
from lambdas.shared.database import Database

QUEUE = Queue(
    "default", "updraft-test-worker-default", "airflow", slots=8, min=1, max=4, capacity_provider="FARGATE"
)
DATABASE = Database("localhost", 5432, "airflow", "load_metric", "ca.pem")
SETTINGS = handler.Settings("updraft", "test", "updraft-test", DATABASE, [QUEUE], {"awsvpcConfiguration": {}})
counts = st.integers(min_value=0, max_value=10_000)


@given(queued=counts, running=counts, workers=st.integers(min_value=0, max_value=50))
def test_fleet_stays_within_its_bounds_and_nothing_is_ever_stopped(
    queued: int, running: int, workers: int
) -> None:
    load = Load(queued=queued, running=running, workers=workers)
    assert QUEUE.min <= wanted_workers(QUEUE, load) <= QUEUE.max
    assert missing_workers(QUEUE, load) >= 0
    assert workers + missing_workers(QUEUE, load) >= min(wanted_workers(QUEUE, load), QUEUE.max)


@pytest.mark.parametrize(
    ("queued", "running", "wanted"), [(0, 0, 1), (8, 0, 1), (9, 0, 2), (0, 17, 3), (8, 9, 3), (500, 0, 4)]
)
def test_slots_cover_what_waits_and_what_runs(queued: int, running: int, wanted: int) -> None:
    assert wanted_workers(QUEUE, Load(queued=queued, running=running, workers=0)) == wanted


def test_metrics_carry_both_dimensions_in_high_resolution() -> None:
    data = metric_data("test", QUEUE, Load(queued=3, running=2, workers=1))
    assert {str(item["MetricName"]): item["Value"] for item in data} == {
        "QueuedTasks": 3, "RunningTasks": 2, "LiveWorkers": 1, "WantedWorkers": 1,
    }  # fmt: skip
    assert all(item["StorageResolution"] == 1 for item in data)


def ecs_answering(answer: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    asked: list[dict[str, Any]] = []

    def run_task(**request: Any) -> dict[str, Any]:
        asked.append(request)
        return answer

    return SimpleNamespace(run_task=run_task), asked


def test_many_workers_are_started_in_calls_of_ten_with_tokens_of_their_own() -> None:
    ecs, asked = ecs_answering({"tasks": [{}], "failures": []})
    assert handler.start_workers(ecs, SETTINGS, QUEUE, 23) == 23
    assert [request["count"] for request in asked] == [10, 10, 3]
    assert len({request["clientToken"] for request in asked}) == 3
    assert all(len(request["clientToken"]) <= 64 for request in asked)


def test_worker_that_ecs_does_not_start_is_an_error() -> None:
    ecs, _ = ecs_answering({"tasks": [], "failures": [{"reason": "CAPACITY"}]})
    with pytest.raises(RuntimeError, match="queue default: ECS did not start all workers: CAPACITY"):
        handler.start_workers(ecs, SETTINGS, QUEUE, 1)
