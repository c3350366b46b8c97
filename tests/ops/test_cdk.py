"""A first creation that failed can be tried again, whatever CloudFormation and RDS protect of it."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ops import cdk
from ops.console import OperatorError


class World:
    """The stacks, resources and databases of an account, and the protections that were lifted."""

    def __init__(self, *stacks: tuple[str, str, bool]) -> None:
        self.prefix = "updraft-prod"
        self.config = SimpleNamespace(region="us-east-1")
        self.lifted: list[str] = []
        self.resources: list[dict[str, str]] = []
        self.databases: dict[str, bool] = {}
        self._stacks = [
            {"StackName": name, "StackStatus": status, "EnableTerminationProtection": protected}
            for name, status, protected in stacks
        ]

    def client(self, service: str) -> Any:
        return {"cloudformation": self, "rds": self}[service]

    def get_paginator(self, operation: str) -> Any:
        assert operation == "describe_stacks"
        return self

    def paginate(self) -> Iterator[dict[str, Any]]:
        yield {"Stacks": self._stacks}

    def update_termination_protection(self, *, StackName: str, EnableTerminationProtection: bool) -> None:
        assert EnableTerminationProtection is False
        self.lifted.append(StackName)

    def describe_stack_resources(self, *, StackName: str) -> dict[str, Any]:
        return {"StackResources": self.resources if StackName.endswith("-storage") else []}

    def describe_db_instances(self, *, Filters: list[dict[str, Any]]) -> dict[str, Any]:
        [identifier] = Filters[0]["Values"]
        found = [identifier] if identifier in self.databases else []
        return {
            "DBInstances": [
                {"DBInstanceIdentifier": name, "DeletionProtection": self.databases[name]} for name in found
            ]
        }


def database(status: str) -> dict[str, str]:
    return {
        "ResourceType": "AWS::RDS::DBInstance",
        "ResourceStatus": status,
        "PhysicalResourceId": "updraft-prod-metadata",
    }


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED"])
def test_stack_that_was_never_complete_may_be_deleted(
    status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(("updraft-prod-storage", status, True), ("updraft-prod-network", "CREATE_COMPLETE", True))
    cdk.free_failed_creations(world)  # type: ignore[arg-type]
    assert world.lifted == ["updraft-prod-storage"]
    [line] = capsys.readouterr().err.splitlines()
    assert "updraft-prod-storage: its first creation failed" in line


@pytest.mark.parametrize(
    "stack",
    [
        ("updraft-prod-storage", "UPDATE_ROLLBACK_COMPLETE", True),
        ("updraft-prod-storage", "UPDATE_ROLLBACK_FAILED", True),
        ("updraft-prod-storage", "DELETE_FAILED", True),
        # The CLI makes the next change set of such a stack without deleting it.
        ("updraft-prod-storage", "REVIEW_IN_PROGRESS", True),
        ("updraft-prod-storage", "ROLLBACK_COMPLETE", False),
        ("updraft-prod2-storage", "ROLLBACK_COMPLETE", True),
    ],
)
def test_every_other_stack_stays_as_it_is(
    stack: tuple[str, str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(stack)
    cdk.free_failed_creations(world)  # type: ignore[arg-type]
    assert world.lifted == []
    assert capsys.readouterr().err == ""


def test_a_protected_database_is_told_with_what_to_do() -> None:
    world = World(("updraft-prod-storage", "ROLLBACK_FAILED", True))
    world.resources, world.databases = [database("DELETE_FAILED")], {"updraft-prod-metadata": True}
    with pytest.raises(OperatorError, match="--db-instance-identifier updraft-prod-metadata --no-deletion"):
        cdk.free_failed_creations(world)  # type: ignore[arg-type]
    assert world.lifted == []
    world.databases = {"updraft-prod-metadata": False}
    cdk.free_failed_creations(world)  # type: ignore[arg-type]
    assert world.lifted == ["updraft-prod-storage"]


def test_a_database_that_is_gone_is_in_nobodys_way() -> None:
    world = World(("updraft-prod-storage", "ROLLBACK_COMPLETE", True))
    world.resources = [database("DELETE_COMPLETE")]
    cdk.free_failed_creations(world)  # type: ignore[arg-type]
    world.resources = [database("DELETE_FAILED")]
    cdk.free_failed_creations(world)  # type: ignore[arg-type]
    assert world.lifted == ["updraft-prod-storage"] * 2


def test_a_deployment_frees_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(("updraft-prod-storage", "ROLLBACK_COMPLETE", True))
    seen: list[list[str]] = []
    monkeypatch.setattr(cdk, "run_cdk", lambda *_: seen.append(list(world.lifted)))
    monkeypatch.setattr(cdk, "assembly_directory", lambda _: "cdk.out")
    cdk.deploy(world)  # type: ignore[arg-type]
    assert seen == [["updraft-prod-storage"]]
