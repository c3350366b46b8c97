"""Runs the example DAGs to their end, each task in Airflow's own task runner: `… run_examples.py RESULTS`.

Writes the state of each run and of its tasks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

from tests.provider.with_airflow import harness


def main(results: Path) -> None:
    """One after the other: a process runs one task at a time."""
    harness.hurry()
    initdb()
    bag = DagBag()
    assert not bag.import_errors, bag.import_errors
    found: dict[str, Any] = {}
    for dag_id in sorted(bag.dags):
        run = bag.dags[dag_id].test()
        tasks = {each.task_id: str(each.state) for each in run.get_task_instances()}
        found[dag_id] = {"state": str(run.state), "tasks": tasks}
    results.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
