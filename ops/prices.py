"""Prices from the dated file beside this module."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ops.console import OperatorError

PRICE_FILE = Path(__file__).with_name("prices.toml")


@cache
def price_file() -> dict[str, Any]:
    """The whole file: `date`, `region`, `source`, and one table for each kind of price."""
    with PRICE_FILE.open("rb") as handle:
        return tomllib.load(handle)


def price(table: str, name: str) -> float:
    """One price in US dollars, per the unit in the table's name; raises OperatorError when there is none."""
    prices: dict[str, float] = price_file()[table]
    try:
        return prices[name]
    except KeyError as error:
        raise OperatorError(
            f"no price for {name} in {PRICE_FILE.name} [{table}], which has: {', '.join(sorted(prices))}. Add it there."
        ) from error


def sagemaker_usd_per_hour(instance_type: str) -> float:
    """On-demand price of a SageMaker instance type; raises OperatorError for one without a price."""
    return price("sagemaker_usd_per_hour", instance_type)
