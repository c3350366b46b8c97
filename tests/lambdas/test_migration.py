"""The migration's custom resource: what it asks of ECS, and how it reads the answers."""

from typing import Any

import pytest

from lambdas.migration import logic

EVENT = {
    "RequestId": "one",
    "ResourceProperties": {
        "Cluster": "updraft-test",
        "TaskDefinition": "arn:aws:ecs:us-east-1:123456789012:task-definition/updraft-test-migration:3",
        "Subnets": ["subnet-1"],
        "SecurityGroups": ["sg-1"],
        "AssignPublicIp": "DISABLED",
    },
}


def test_repeated_event_asks_with_the_same_token() -> None:
    first, again = logic.run_task_request(EVENT), logic.run_task_request(EVENT)
    other = logic.run_task_request(EVENT | {"RequestId": "two"})
    assert first == again
    assert first["clientToken"] != other["clientToken"]


def stopped(*codes: int | None) -> dict[str, Any]:
    containers = [{"exitCode": code} if code is not None else {} for code in codes]
    return {"tasks": [{"lastStatus": "STOPPED", "stoppedReason": "because", "containers": containers}]}


def test_running_migration_is_not_complete() -> None:
    assert logic.has_succeeded({"tasks": [{"lastStatus": "RUNNING", "containers": [{}]}]}) is False


def test_exit_code_zero_is_success() -> None:
    assert logic.has_succeeded(stopped(0)) is True


@pytest.mark.parametrize("answer", [stopped(1), stopped(0, 137), stopped(None)])
def test_any_other_end_fails_the_deployment(answer: dict[str, Any]) -> None:
    with pytest.raises(logic.MigrationFailedError, match="because"):
        logic.has_succeeded(answer)


@pytest.mark.parametrize("read", [logic.started_task, logic.has_succeeded])
def test_task_that_is_not_there_is_told_with_the_reason(read: Any) -> None:
    with pytest.raises(logic.MigrationFailedError, match="RESOURCE:MEMORY"):
        read({"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]})
