"""What the laptop's commands take from the account before they deploy."""

import pytest

from ops.laptop import is_changing


@pytest.mark.parametrize(
    ("stack_status", "expected"),
    [
        ("CREATE_IN_PROGRESS", True),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", True),
        ("UPDATE_ROLLBACK_IN_PROGRESS", True),
        ("CREATE_COMPLETE", False),
        ("UPDATE_ROLLBACK_COMPLETE", False),
        # A deployment killed between making a new stack's change set and executing it leaves this for ever.
        ("REVIEW_IN_PROGRESS", False),
    ],
)
def test_stack_in_review_is_not_waited_for(stack_status: str, expected: bool) -> None:
    assert is_changing(stack_status) is expected
