"""Which workers may leave: the oldest `least` stay."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.fleet import is_spare, own_task, revision_of


def tasks(count: int) -> list[dict[str, Any]]:
    return [
        {
            "taskArn": f"task/{number:03d}",
            "createdAt": number // 2,
            "attachments": [{"details": [{"name": "privateIPv4Address", "value": f"10.0.0.{number}"}]}],
        }
        for number in range(count)
    ]


@given(count=st.integers(min_value=1, max_value=40), least=st.integers(min_value=0, max_value=10))
def test_exactly_the_oldest_stay(count: int, least: int) -> None:
    fleet = tasks(count)
    staying = [task for task in fleet if not is_spare(task, fleet, least=least)]
    assert staying == fleet[: min(least, count)]


def test_worker_finds_itself_by_its_address() -> None:
    fleet = tasks(3)
    assert own_task(fleet, "10.0.0.2") is fleet[2]
    assert own_task(fleet, "10.0.0.9") is None


def test_revision_is_read_from_the_arn() -> None:
    assert (
        revision_of("arn:aws:ecs:us-east-1:123456789012:task-definition/updraft-dev-worker-default:12") == 12
    )
