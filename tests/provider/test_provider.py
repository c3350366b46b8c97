"""The provider's operators, sensors and examples do on the local account what docs/provider.md says of each."""

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.account

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "provider.md").read_text()
OPERATOR = re.compile(
    r"^\| `(SageMaker\w+)` \| ([a-z, ]+) \| (passes|does not pass) \| (.+) \|$", re.MULTILINE
)
EXAMPLE = re.compile(r"^\| `(example_\w+)` \| (passes|does not pass) \| (.+) \|$", re.MULTILINE)
# (operator, mode): (outcome, what the page says of it)
ROWS = {
    (name, mode): (outcome, text)
    for name, modes, outcome, text in OPERATOR.findall(PAGE)
    for mode in modes.split(", ")
}
EXAMPLES = {name: (outcome, text) for name, outcome, text in EXAMPLE.findall(PAGE)}
# Which way each branch of the example goes.
LEFT_OUT = {"example_sagemaker_condition": {"retrain_model", "should_not_run", "logical_fail"}}


@pytest.fixture(scope="session")
def outcomes(airflow_side: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What each operator did in each mode."""
    return {(row["operator"], row["mode"]): row["cases"] for row in airflow_side["operators"]}


def test_page_has_every_operator_and_sensor_of_the_provider_in_every_mode(
    outcomes: dict[tuple[str, str], list[dict[str, Any]]],
) -> None:
    assert set(ROWS) == set(outcomes)


@pytest.mark.parametrize(("operator", "mode"), ROWS)
def test_operator_does_what_the_page_says(
    outcomes: dict[tuple[str, str], list[dict[str, Any]]], operator: str, mode: str
) -> None:
    cases = outcomes[operator, mode]
    assert cases, f"no case of tests/provider/with_airflow runs {operator} in the mode {mode}"
    assert not [case["error"] for case in cases if "error" in case]
    outcome, text = ROWS[operator, mode]
    if outcome == "passes":
        assert {case["outcome"] for case in cases} == {"passes"}
    else:
        [refused] = {case.get("operation") for case in cases}
        assert f"`{refused}`" in text


def test_page_has_every_example_that_is_run(airflow_side: dict[str, Any]) -> None:
    assert {name for name, (outcome, _) in EXAMPLES.items() if outcome == "passes"} == set(
        airflow_side["examples"]
    )


@pytest.mark.parametrize("example", [name for name, (outcome, _) in EXAMPLES.items() if outcome == "passes"])
def test_example_runs_to_its_end(airflow_side: dict[str, Any], example: str) -> None:
    run = airflow_side["examples"][example]
    skipped = {name for name, state in run["tasks"].items() if state == "skipped"}
    assert {name: state for name, state in run["tasks"].items() if state not in ("success", "skipped")} == {}
    assert (run["state"], skipped) == ("success", LEFT_OUT.get(example, set()))
