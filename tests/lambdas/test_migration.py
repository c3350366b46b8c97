"""The migration's custom resource: what it asks of ECS, and how it reads the answers."""

from typing import Any
from unittest.mock import patch

import boto3
import pytest

from lambdas.migration import handler, logic
from runtime import migrate

EVENT = {
    "RequestType": "Update",
    "RequestId": "one",
    "Data": {"TaskArn": "task/one"},
    "ResourceProperties": {
        "Cluster": "updraft-test",
        "TaskDefinition": "arn:aws:ecs:us-east-1:123456789012:task-definition/updraft-test-migration:3",
        "Subnets": ["subnet-1"],
        "SecurityGroups": ["sg-1"],
        "AssignPublicIp": "DISABLED",
        "Services": {"scheduler": "2", "triggerer": "1"},
        "Packages": ["apache-airflow==3.2.2"],
    },
    "OldResourceProperties": {
        "TaskDefinition": "arn:aws:ecs:us-east-1:123456789012:task-definition/updraft-test-migration:2",
    },
}


def test_repeated_event_asks_with_the_same_token() -> None:
    first, again = logic.run_task_request(EVENT), logic.run_task_request(EVENT)
    other = logic.run_task_request(EVENT | {"RequestId": "two"})
    assert first == again
    assert first["clientToken"] != other["clientToken"]


def stopped(*codes: int | None) -> dict[str, Any]:
    containers = [
        {"name": "airflow"} if code is None else {"name": "airflow", "exitCode": code} for code in codes
    ]
    return {"tasks": [{"lastStatus": "STOPPED", "stoppedReason": "because", "containers": containers}]}


def test_running_task_has_no_exit_code_yet() -> None:
    assert logic.exit_code({"tasks": [{"lastStatus": "RUNNING", "containers": [{}]}]}) is None


@pytest.mark.parametrize("code", [0, 1, 3, 137])
def test_stopped_task_has_its_exit_code(code: int) -> None:
    assert logic.exit_code(stopped(code)) == code


def test_task_without_an_exit_code_fails_the_deployment_with_ecs_reason() -> None:
    with pytest.raises(logic.MigrationFailedError, match="because"):
        logic.exit_code(stopped(None))


@pytest.mark.parametrize("code", [1, 2, 137])
def test_failed_migration_fails_the_deployment(code: int) -> None:
    with pytest.raises(logic.MigrationFailedError, match=str(code)):
        logic.steps_after(code, EVENT)


@pytest.mark.parametrize("read", [logic.started_task, logic.exit_code])
def test_task_that_is_not_there_is_told_with_the_reason(read: Any) -> None:
    with pytest.raises(logic.MigrationFailedError, match="RESOURCE:MEMORY"):
        read({"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]})


def test_task_that_ecs_does_not_know_yet_is_waited_for() -> None:
    assert logic.exit_code({"tasks": [], "failures": [{"arn": "task/one", "reason": "MISSING"}]}) is None


def test_both_sides_mean_the_same_by_an_exit_code() -> None:
    assert logic.EXIT_SERVICES_MUST_STOP == migrate.EXIT_SERVICES_MUST_STOP
    assert logic.EXIT_SCHEMA_IS_NEWER == migrate.EXIT_SCHEMA_IS_NEWER


def test_newer_schema_without_a_newer_image_is_refused() -> None:
    created = {key: value for key, value in EVENT.items() if key != "OldResourceProperties"}
    with pytest.raises(logic.MigrationFailedError, match="nothing was changed"):
        logic.steps_after(logic.EXIT_SCHEMA_IS_NEWER, created)


class Cluster:
    """ECS as the handler sees it: tasks end with the codes given for their command, services follow their count."""

    def __init__(self, first: int, *, desired: int = 2, codes: dict[str, int] | None = None) -> None:
        self.codes, self.log = codes or {}, []  # type: tuple[dict[str, int], list[str]]
        self.tasks = {"task/one": first}
        self.services = {"scheduler": desired, "triggerer": min(desired, 1)}
        self.running = dict(self.services)

    def run_task(self, **request: Any) -> dict[str, Any]:
        command = request["overrides"]["containerOverrides"][0]["command"]
        arn = f"task/{request['clientToken']}"
        if arn not in self.tasks:
            self.log.append(f"{request['taskDefinition'][-2:]} {' '.join(command[3:])}")
            self.tasks[arn] = self.codes.get(command[3], 0)
        return {"tasks": [{"taskArn": arn}]}

    def describe_tasks(self, *, cluster: str, tasks: list[str]) -> dict[str, Any]:
        assert cluster == "updraft-test"
        return stopped(self.tasks[tasks[0]])

    def describe_services(self, *, cluster: str, services: list[str]) -> dict[str, Any]:
        assert cluster == "updraft-test"
        found = [
            {
                "serviceName": name,
                "status": "ACTIVE",
                "desiredCount": self.services[name],
                "runningCount": self.running[name],
                "pendingCount": 0,
            }
            for name in services
        ]
        self.running = dict(self.services)
        return {"services": found, "failures": []}

    def update_service(self, *, cluster: str, service: str, desiredCount: int) -> None:
        assert cluster == "updraft-test"
        self.services[service] = desiredCount
        self.log.append(f"{service}={desiredCount}")


def polled(cluster: Cluster, *, most: int = 10) -> list[str]:
    """What the handler did until it was complete."""
    with patch.object(boto3, "client", lambda _service: cluster):
        for _ in range(most):
            if handler.is_complete(EVENT, None)["IsComplete"]:
                return cluster.log
    raise AssertionError(f"not complete after {most} looks: {cluster.log}")


STOPPED = ["scheduler=0", "triggerer=0"]
STARTED = ["scheduler=2", "triggerer=1"]


def test_deployment_without_a_new_schema_leaves_the_services_alone() -> None:
    assert polled(Cluster(0)) == []


def test_older_schema_is_migrated_while_the_services_stand_still() -> None:
    assert polled(Cluster(3)) == [*STOPPED, ":3 --services-stopped", *STARTED]


def test_newer_schema_is_taken_back_by_the_image_that_knows_it() -> None:
    assert polled(Cluster(4)) == [
        *STOPPED,
        ":2 --back-to apache-airflow==3.2.2",
        ":3 --services-stopped",
        *STARTED,
    ]


def test_rollback_after_a_failed_migration_starts_the_services_again() -> None:
    assert polled(Cluster(0, desired=0)) == STARTED


@pytest.mark.parametrize("failing", ["--services-stopped", "--back-to"])
def test_failed_step_fails_the_deployment_and_nothing_starts_on_that_schema(failing: str) -> None:
    cluster = Cluster(4, codes={failing: 1})
    with pytest.raises(logic.MigrationFailedError, match="ended with 1"):
        polled(cluster)
    assert not set(cluster.log) & set(STARTED)
