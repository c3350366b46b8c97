"""Prices from the dated file beside this module."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from ops.console import OperatorError

PRICE_FILE = Path(__file__).with_name("prices.toml")


@cache
def _prices() -> dict[str, float]:
    with PRICE_FILE.open("rb") as handle:
        prices: dict[str, float] = tomllib.load(handle)["sagemaker_usd_per_hour"]
    return prices


def sagemaker_usd_per_hour(instance_type: str) -> float:
    """On-demand price of a SageMaker instance type; raises OperatorError for one without a price."""
    try:
        return _prices()[instance_type]
    except KeyError as error:
        raise OperatorError(
            f"no price for {instance_type}; {PRICE_FILE.name} has: {', '.join(sorted(_prices()))}. Add it there."
        ) from error
