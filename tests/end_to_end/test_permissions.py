"""What the demo's roles did, AWS would have allowed: the emulated account answers everybody, and writes it down."""

from typing import Any

import pytest

from ops.permissions import recorded, review
from ops.target import target_of

pytestmark = pytest.mark.platform

# One role of each kind that the demo must have used, by a part of its name.
USED = (
    "-airflow-TaskRole",
    "ExecutionRole",
    "-network-BastionRole",
    "-workflows-JobRole",
    "-scaling-LoadMetric",
)


@pytest.mark.usefixtures("demo")
def test_no_role_did_what_its_policies_do_not_allow() -> None:
    found = review(recorded(), target_of("local").prefix)
    assert [str(call) for call in found.missing] == []
    assert [str(call) for call in found.unread] == []
    assert [str(grant) for grant in found.unexplained] == []


def test_every_kind_of_role_was_recorded(demo: dict[str, Any]) -> None:
    assert demo["dag_run"]["state"] == "success"
    roles = {call["role"] for call in recorded()["calls"]}
    assert [part for part in USED if not any(part in role for role in roles)] == []
