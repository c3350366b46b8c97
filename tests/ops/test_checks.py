"""`updraft test`: its stages, and what it says of them."""

import json
import sys
from typing import Any

import pytest

from ops import commands_checks
from ops.console import OperatorError

SAYS = ["timeit", "-n1", "-r1", "print('it ran')"]
FAILS = ["timeit", "--unknown"]


@pytest.fixture(autouse=True)
def _no_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_checks, "ensure_environment", lambda _image: None)
    monkeypatch.setattr(commands_checks, "ensure_node", lambda: None)
    monkeypatch.setattr(commands_checks, "environment_python", lambda _environment: sys.executable)


@pytest.mark.parametrize(("beside", "codes"), [(SAYS, [0, 0]), (FAILS, [0, 2])])
def test_stage_beside_the_others_is_shown_at_its_end(
    beside: list[str], codes: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    results = commands_checks._run_stages({"types": SAYS}, {"platform": beside}, as_json=False)
    assert [(row["stage"], row["exit"]) for row in results] == [
        ("types", codes[0]),
        ("platform", codes[1]),
    ]
    shown = capfd.readouterr()
    assert "it ran" in shown.out
    assert ("it ran" if beside is SAYS else "--unknown not recognized") in shown.err.split("· platform:\n")[1]


@pytest.mark.parametrize(
    ("codes", "select", "passes"),
    [
        ({"tests": 0, "platform": 0, "account": 0}, None, True),
        ({"tests": 0, "platform": 1, "account": 0}, None, False),
        ({"tests": 0, "platform": 0, "account": 1}, None, False),
        ({"tests": 0, "platform": 5, "account": 0}, None, False),
        ({"tests": 0, "platform": 5, "account": 5}, "loads", True),
        ({"tests": 5, "platform": 0, "account": 5}, "demo", True),
        ({"tests": 5, "platform": 5, "account": 5}, "misspelt", False),
        ({"tests": 1, "platform": 5, "account": 0}, "loads", False),
    ],
)
def test_selection_that_only_one_stage_knows_passes(
    codes: dict[str, int],
    select: str | None,
    passes: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ran(name: str, command: list[str], _output: Any) -> dict[str, Any]:
        assert (select in command) == (select is not None and name in codes)
        return {"stage": name, "exit": codes.get(name, 0), "seconds": 0.1}

    monkeypatch.setattr(commands_checks, "_run_stage", ran)
    try:
        commands_checks.run_tests(select=select, as_json=True)
    except OperatorError:
        assert not passes
    else:
        assert passes
    assert json.loads(capsys.readouterr().out)["passed"] is passes
