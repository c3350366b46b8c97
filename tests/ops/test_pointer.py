"""The live version, before the first push and after it."""

import pytest

from ops.console import OperatorError
from ops.delivery import live_version
from tests.ops.conftest import FakeTarget


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ({"Parameter": {"Value": "abc"}}, "abc"),
        ({"Error": {"Code": "ParameterNotFound", "Message": ""}}, "none"),
    ],
)
def test_live_version_is_what_the_pointer_names(answer: dict[str, dict[str, str]], version: str) -> None:
    found = FakeTarget({"GetParameter": lambda _: answer})
    found.__dict__["outputs"] = {"delivery": {"PointerParameter": "/updraft/dev/bundle/pointer"}}
    assert live_version(found) == version
    assert found.requests("GetParameter") == [{"Name": "/updraft/dev/bundle/pointer"}]


def test_pointer_that_may_not_be_read_is_told() -> None:
    found = FakeTarget({"GetParameter": lambda _: {"Error": {"Code": "AccessDenied", "Message": "no"}}})
    found.__dict__["outputs"] = {"delivery": {"PointerParameter": "/p"}}
    with pytest.raises(OperatorError, match="the pointer /p can't be read"):
        live_version(found)
