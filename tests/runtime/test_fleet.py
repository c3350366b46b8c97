"""What a worker reads from the fleet's record, and that silence never sends it away."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from runtime.departure import Order
from runtime.fleet import FRESH_SECONDS, Fleet

NOW = 1_800_000_000.0
OWN = "10.0.0.7"


def fleet_with(*values: Any, fleet: Fleet | None = None) -> Fleet:
    """A fleet that has looked once at each value: text of the parameter, or an error."""
    fleet = fleet or Fleet(parameter="/updraft/test/workers/default", address=OWN)
    for value in values:

        def get_parameter(value: Any = value, **_: Any) -> dict[str, Any]:
            if isinstance(value, Exception):
                raise value
            return {"Parameter": {"Value": value if isinstance(value, str) else json.dumps(value)}}

        fleet._ssm = SimpleNamespace(get_parameter=get_parameter)
        fleet.look()
    return fleet


def record(**values: Any) -> dict[str, Any]:
    return {"written_at": NOW, "take_work": True, "keep": [], "closing": []} | values


@pytest.mark.parametrize(
    ("value", "order"),
    [
        (record(keep=[OWN]), Order.STAY),
        (record(keep=["10.0.0.8"]), Order.SPARE),
        (record(closing=[OWN]), Order.CLOSE),
        (record(keep=[OWN], take_work=False), Order.CLOSE),
        ({}, Order.STAY),
        ("{}", Order.STAY),
        ("none", Order.STAY),
        ("[]", Order.STAY),
    ],
)
def test_order_follows_the_record(value: Any, order: Order) -> None:
    assert fleet_with(value).order(NOW + 5) is order


def test_worker_that_has_never_read_a_record_stays() -> None:
    silent = EndpointConnectionError(endpoint_url="https://ssm")
    assert fleet_with(silent).order(NOW) is Order.STAY


def test_silence_of_ssm_makes_a_spare_worker_stay() -> None:
    silent = EndpointConnectionError(endpoint_url="https://ssm")
    fleet = fleet_with(record(), silent, silent)
    assert fleet.order(NOW + FRESH_SECONDS - 1) is Order.SPARE
    assert fleet.order(NOW + FRESH_SECONDS + 1) is Order.STAY


def test_worker_of_a_queue_that_is_gone_takes_no_more_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    gone = ClientError({"Error": {"Code": "ParameterNotFound", "Message": ""}}, "GetParameter")
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "GetParameter")
    assert fleet_with(record(keep=[OWN]), gone).order(NOW + 5) is Order.CLOSE
    assert fleet_with(record(keep=[OWN]), denied).order(NOW + 5) is Order.STAY


@given(age=st.floats(FRESH_SECONDS + 0.5, 1e8))
def test_no_old_record_sends_a_worker_away(age: float) -> None:
    fleet = fleet_with(record(closing=[OWN], take_work=False))
    assert fleet.order(NOW + age) is Order.STAY
    assert fleet.order(NOW - age) is Order.STAY
