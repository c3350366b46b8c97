"""Grids and single values: what a run may ask for, and what Airflow refuses by their schemas."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "dags"))

from airflow.sdk.exceptions import ParamValidationError
from flights import grid

GOOD = {"max_depth": [4, 8], "n_estimators": [10, 20, 40]}


class GridTest(unittest.TestCase):
    def test_every_combination_is_one_point(self) -> None:
        found = grid.points(GOOD)
        self.assertEqual(len(found), 6)
        self.assertIn({"max_depth": 8, "n_estimators": 10}, found)
        self.assertEqual(grid.label(found[0]), "max_depth 4, n_estimators 10")

    def test_grid_out_of_bounds_is_refused(self) -> None:
        parameter = grid.grid(GOOD)
        self.assertEqual(parameter.resolve(), GOOD)
        bad: list[Any] = [
            GOOD | {"max_depth": []},
            GOOD | {"max_depth": [1, 2, 3, 4, 5]},
            GOOD | {"max_depth": [4, 4]},
            GOOD | {"max_depth": [17]},
            GOOD | {"max_depth": ["4"]},
            GOOD | {"max_depth": 4},
            GOOD | {"n_estimators": [501]},
            GOOD | {"n_estimators": [0]},
            GOOD | {"eta": [0.1]},
            {"max_depth": [4]},
            [4, 8],
            None,
        ]
        for value in bad:
            with self.subTest(value=value), self.assertRaises(ParamValidationError):
                parameter.resolve(value)

    def test_one_value_is_a_whole_number_in_its_range(self) -> None:
        depth = grid.one_value(6, grid.MAX_DEPTH, "Depth of each tree")
        self.assertEqual(depth.resolve(16), 16)
        for value in (0, 17, 6.5, "6", None, True):
            with self.subTest(value=value), self.assertRaises(ParamValidationError):
                depth.resolve(value)


if __name__ == "__main__":
    unittest.main()
