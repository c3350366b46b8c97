"""What the schedules will start: first tasks of a serialized DAG, within pools and active-run limits."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lambdas.load_metric.schedule import FirstTask, NextRun, expected_tasks, first_tasks


def serialized(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"dag": {"tasks": [{"__type": "operator", "__var": task} for task in tasks]}}


def test_first_tasks_stand_behind_empty_ones() -> None:
    dag = serialized(
        {"task_id": "start", "_is_empty": True, "downstream_task_ids": ["a", "b", "sensor", "gate"]},
        {"task_id": "gate", "_is_empty": True, "downstream_task_ids": ["c"]},
        {"task_id": "a", "queue": "gpu", "pool": "p", "pool_slots": 2, "downstream_task_ids": ["end"]},
        {"task_id": "b", "partial_kwargs": {"queue": "gpu"}, "downstream_task_ids": ["end"]},
        {"task_id": "c", "downstream_task_ids": ["end"]},
        {"task_id": "sensor", "start_from_trigger": True},
        {"task_id": "end"},
    )
    assert first_tasks(dag) == (FirstTask("gpu", "p", 2), FirstTask("gpu"), FirstTask())


def run(dag_id: str = "d", at: float = 10, **values: Any) -> NextRun:
    limits: dict[str, Any] = {"active_runs": 0, "max_active_runs": 16, "max_active_tasks": 16}
    return NextRun(dag_id, at, first_tasks=values.pop("first", (FirstTask(),) * 3), **(limits | values))


def expected(runs: list[NextRun], pools: dict[str, int] | None = None, horizon: float = 60) -> int:
    open_slots = {"default_pool": 128} if pools is None else pools
    return expected_tasks(runs, open_slots, queue="default", horizon_seconds=horizon)


def test_runs_beyond_the_horizon_do_not_count() -> None:
    assert expected([run(at=60), run(at=61), run(at=-5)]) == 6


def test_limits_of_airflow_hold() -> None:
    assert expected([run(active_runs=1, max_active_runs=1)]) == 0
    assert expected([run(max_active_tasks=2)]) == 2
    assert expected([run()], {"default_pool": 1}) == 1
    assert expected([run()], {"default_pool": -1}) == 3
    assert expected([run()], {}) == 0
    assert expected([run(first=(FirstTask(queue="gpu"),))]) == 0


def test_pool_is_filled_in_the_order_of_the_runs() -> None:
    early, late = run("a", 5, first=(FirstTask("gpu"),)), run("b", 6)
    assert expected([late, early], {"default_pool": 2}) == 1


@given(
    starts=st.lists(st.floats(-60, 120), max_size=20),
    slots=st.integers(-1, 40),
    horizon=st.floats(0, 120),
)
def test_never_more_than_pools_have_and_more_with_a_longer_horizon(
    starts: list[float], slots: int, horizon: float
) -> None:
    runs = [run(str(number), at) for number, at in enumerate(starts)]
    found = expected(runs, {"default_pool": slots}, horizon)
    due = 3 * sum(at <= horizon for at in starts)
    assert found == (due if slots == -1 else min(due, slots))
    assert expected(runs, {"default_pool": slots}, horizon + 30) >= found
