"""A stack operation that a power cut ended goes on, or is told to have failed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ministack.services import cloudformation, ssm  # type: ignore[import-untyped]
from ministack.services.cloudformation import handlers  # type: ignore[import-untyped]

from local.account import patches, recovery
from local.account.context import AccountContext
from local.paths import LocalPaths

WAIT_SECONDS = 20
NAME = "stack-of-the-test"


@pytest.fixture
def context(tmp_path: Path) -> AccountContext:
    return AccountContext(paths=LocalPaths(tmp_path), logger=logging.getLogger("test"))


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(handlers, "_ACTION_HANDLERS", dict(handlers._ACTION_HANDLERS))
    patches.changed_outputs_are_a_change()
    yield
    cloudformation.reset()
    ssm.reset()


def template(*parameters: str, outputs: tuple[str, ...] = ()) -> str:
    resources = {
        name: {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Name": f"/{name}", "Type": "String", "Value": name},
        }
        for name in parameters
    }
    return json.dumps(
        {"Resources": resources, "Outputs": {f"Out{name}": {"Value": {"Ref": name}} for name in outputs}}
    )


def change_set(name: str, body: str, kind: str = "UPDATE") -> dict[str, Any]:
    call("CreateChangeSet", ChangeSetName=name, TemplateBody=body, ChangeSetType=kind)
    return next(item for item in cloudformation._change_sets.values() if item["ChangeSetName"] == name)


def call(action: str, **parameters: str) -> None:
    status, _headers, body = handlers._ACTION_HANDLERS[action](
        {"StackName": [NAME]} | {key: [value] for key, value in parameters.items()}
    )
    assert status == 200, body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def stack() -> dict[str, Any]:
    return dict(cloudformation._stacks[NAME])


async def made(body: str) -> None:
    change_set("first", body, "CREATE")
    call("ExecuteChangeSet", ChangeSetName="first")
    await until(lambda: stack()["StackStatus"] == "CREATE_COMPLETE")


def test_a_cut_off_update_goes_on_to_its_end(context: AccountContext) -> None:
    async def scenario() -> None:
        await made(template("A", "B"))
        pending = change_set("second", template("A", "C", "D"))
        # What the saved state shows when the power went in the middle of it.
        pending["ExecutionStatus"] = "EXECUTE_IN_PROGRESS"
        cloudformation._stacks[NAME]["StackStatus"] = "UPDATE_IN_PROGRESS"
        recovery._go_on(context)
        await until(lambda: stack()["StackStatus"] == "UPDATE_COMPLETE")
        await until(lambda: pending["ExecutionStatus"] == "EXECUTE_COMPLETE")

    asyncio.run(scenario())
    assert set(stack()["_resources"]) == {"A", "C", "D"}
    assert "/C" in ssm._parameters
    assert "/B" not in ssm._parameters


def test_a_cut_off_creation_makes_what_is_missing(context: AccountContext) -> None:
    async def scenario() -> None:
        await made(template("A", "B"))
        [executed] = cloudformation._change_sets.values()
        executed["ExecutionStatus"] = "EXECUTE_IN_PROGRESS"
        ours = cloudformation._stacks[NAME]
        del ours["_resources"]["B"]
        handlers_status = ssm._parameters.pop("/B", None)
        assert handlers_status is not None
        ours |= {"StackStatus": "CREATE_IN_PROGRESS"}
        ours.pop("_template")
        recovery._go_on(context)
        await until(lambda: stack()["StackStatus"] == "UPDATE_COMPLETE")

    asyncio.run(scenario())
    assert "/B" in ssm._parameters


def test_what_cannot_go_on_is_told_to_have_failed(context: AccountContext) -> None:
    async def scenario() -> None:
        await made(template("A"))
        cloudformation._stacks[NAME]["StackStatus"] = "DELETE_IN_PROGRESS"
        recovery._go_on(context)

    asyncio.run(scenario())
    assert stack()["StackStatus"] == "DELETE_FAILED"
    assert "stopped" in stack()["StackStatusReason"]


def test_only_a_changed_output_is_a_change_that_can_be_executed() -> None:
    async def scenario() -> None:
        await made(template("A"))
        assert change_set("same", template("A"))["ExecutionStatus"] == "UNAVAILABLE"
        assert change_set("output", template("A", outputs=("A",)))["ExecutionStatus"] == "AVAILABLE"
        call("ExecuteChangeSet", ChangeSetName="output")
        await until(lambda: stack()["StackStatus"] == "UPDATE_COMPLETE")

    asyncio.run(scenario())
    assert [output["OutputKey"] for output in stack()["Outputs"]] == ["OutA"]
