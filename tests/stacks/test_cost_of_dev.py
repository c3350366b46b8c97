"""The shipped small environment stays cheap: whoever adds a resource sees here what it costs."""

from typing import Any

import pytest

from ops.cost import report
from ops.cost.model import Environment
from tests.stacks.assemblies import templates

MOST_ROUND_THE_CLOCK_USD = 75
MOST_ASLEEP_USD = 35
pytestmark = pytest.mark.synth


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_every_resource_has_a_price_or_is_known_to_be_free(name: str) -> None:
    stacks: dict[str, Any] = dict(templates(name))
    document = report.estimate(Environment.of(stacks), task_hours=200, awake_hours_per_week=50)
    assert document["items"]
    if name == "dev":
        assert document["usd_per_month"]["floor"] <= MOST_ROUND_THE_CLOCK_USD
        assert document["usd_per_month"]["asleep_load"] <= MOST_ASLEEP_USD
        assert document["cost_ratio_over_mwaa"] < 0.5
