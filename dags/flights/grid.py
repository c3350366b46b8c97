"""The hyper-parameters of the flights model, as parameters of DAGs: one value each, or a grid of them."""

from __future__ import annotations

import itertools
from typing import Any

from airflow.sdk import Param

# Flights that a pipeline of this folder learns from and is tested on.
SAMPLE = 60_000
MAX_DEPTH = {"type": "integer", "minimum": 1, "maximum": 16}
N_ESTIMATORS = {"type": "integer", "minimum": 1, "maximum": 500}
# Four values each are sixteen trainings at most.
MOST_VALUES = 4


def one_value(default: int, schema: dict[str, Any], description: str) -> Param:
    """A parameter of one number."""
    return Param(default, **schema, description=description)


def grid(default: dict[str, list[int]]) -> Param:
    """A parameter with the values of each hyper-parameter, and of no other."""

    def values(schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "array",
            "items": schema,
            "minItems": 1,
            "maxItems": MOST_VALUES,
            "uniqueItems": True,
        }

    return Param(
        default,
        type="object",
        properties={"max_depth": values(MAX_DEPTH), "n_estimators": values(N_ESTIMATORS)},
        required=["max_depth", "n_estimators"],
        additionalProperties=False,
        description=f"Values to try, at most {MOST_VALUES} of each: every combination is one training",
    )


def points(grid: dict[str, list[int]]) -> list[dict[str, int]]:
    """Every combination of a grid's values."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def label(point: dict[str, int]) -> str:
    """A point for people: `max_depth 4, n_estimators 30`."""
    return ", ".join(f"{name} {value}" for name, value in point.items())
