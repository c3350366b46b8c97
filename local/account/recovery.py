"""CloudFormation after a power cut: what it was at goes on.

On AWS, CloudFormation outlives the machine that deploys. Here it ends with the account's process, and the stacks that
it was changing would be in progress for ever. An update or creation whose change set is known goes on from the
resources that are there; a deletion is told to have failed, so that it can be asked for again.
"""

from __future__ import annotations

import copy
from typing import Any

from ministack import app as ministack_app  # type: ignore[import-untyped]
from ministack.services import cloudformation  # type: ignore[import-untyped]
from ministack.services.cloudformation import changesets, stacks  # type: ignore[import-untyped]

from local.account.context import AccountContext

REASON = "the account stopped while this operation was in progress"
FAILED = {
    "CREATE_IN_PROGRESS": "CREATE_FAILED",
    "UPDATE_IN_PROGRESS": "UPDATE_FAILED",
    "DELETE_IN_PROGRESS": "DELETE_FAILED",
    "ROLLBACK_IN_PROGRESS": "ROLLBACK_FAILED",
    "UPDATE_ROLLBACK_IN_PROGRESS": "UPDATE_ROLLBACK_FAILED",
}


def go_on(context: AccountContext) -> None:
    """Take up every stack operation that the saved state shows in progress; call it once the planes run."""
    ministack_app._MAIN_LOOP.call_soon_threadsafe(_go_on, context)


def _go_on(context: AccountContext) -> None:
    for stack in list(cloudformation._stacks._data.values()):
        status = stack["StackStatus"]
        if status not in FAILED:
            continue
        change_set = _executing(stack["StackId"])
        if change_set is not None and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"):
            context.logger.info("%s: going on with what was %s", stack["StackName"], status)
            _continue(stack, change_set)
        else:
            context.logger.warning("%s: was %s when the account stopped", stack["StackName"], status)
            stack["StackStatus"] = FAILED[status]
            stack["StackStatusReason"] = REASON


def _executing(stack_id: str) -> dict[str, Any] | None:
    """The change set that the stack was carrying out."""
    for change_set in cloudformation._change_sets._data.values():
        if change_set["StackId"] == stack_id and change_set["ExecutionStatus"] == "EXECUTE_IN_PROGRESS":
            return change_set  # type: ignore[no-any-return]
    return None


def _continue(stack: dict[str, Any], change_set: dict[str, Any]) -> None:
    # A creation goes on as an update: what has been made is compared, what is missing is made.
    before = {
        name: copy.deepcopy(stack.get(name, empty))
        for name, empty in (
            ("_resources", {}),
            ("_template", {}),
            ("_template_body", ""),
            ("_resolved_params", {}),
            ("_conditions", {}),
            ("Parameters", []),
            ("Tags", []),
            ("Outputs", []),
        )
    }
    stack["StackStatus"] = "UPDATE_IN_PROGRESS"
    deployment = stacks._deploy_stack_async(
        stack["StackName"],
        stack["StackId"],
        change_set["_template"],
        change_set["_resolved_params"],
        False,
        change_set["Tags"],
        is_update=True,
        previous_stack=before,
    )
    stacks._create_stack_task_in_region(
        changesets._track_change_set_execution(change_set, stack, deployment), stack, stack["StackId"]
    )
