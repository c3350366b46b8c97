"""Where a run keeps its files."""

from __future__ import annotations

import unittest
from types import SimpleNamespace

from jinja2 import Template

from runtime.dag_defaults import run_prefix


def prefix(dag_id: str) -> str:
    """As Airflow renders it in a task of a run."""
    run_id = "scheduled__2026-11-22T00:00:00+00:00"
    return Template(run_prefix("pets")).render(dag=SimpleNamespace(dag_id=dag_id), run_id=run_id)


class Prefix(unittest.TestCase):
    def test_runs_of_the_same_id_of_two_dags_share_no_folder(self) -> None:
        self.assertEqual(prefix("nightly"), "pets/nightly/scheduled__2026-11-22T00-00-00-00-00")
        self.assertNotEqual(prefix("pet_detection"), prefix("nightly"))


if __name__ == "__main__":
    unittest.main()
