"""Every DAG imports in Airflow's own environment, as the dag-processor would import it, and keeps the house rules."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
# As the dag-processor does it, in a fresh interpreter and without a database.
DESCRIBE = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
found = [
    {
        "dag_id": dag.dag_id, "owner": dag.owner, "tags": sorted(dag.tags), "doc": dag.doc_md or "",
        "timeout": bool(dag.dagrun_timeout), "catchup": dag.catchup,
        "tasks": {
            task.task_id: {"retries": task.retries, "downstream": sorted(task.downstream_task_ids)}
            for task in dag.tasks
        },
    }
    for dag in bag.dags.values()
]
print(json.dumps({"dags": found, "errors": bag.import_errors}))
"""


@cache
def described() -> dict[str, Any]:
    """What the DAG files say, read once."""
    home = mkdtemp(prefix="updraft-dags-")
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    ran = subprocess.run(
        [PYTHON, "-c", DESCRIBE],
        cwd=ROOT,
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'dags'}",
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def test_exactly_these_dags_are_shipped() -> None:
    assert described()["errors"] == {}
    assert sorted(dag["dag_id"] for dag in described()["dags"]) == ["pet_detection", "sagemaker_training"]


def test_every_dag_has_owner_tags_documentation_and_limits() -> None:
    for dag in described()["dags"]:
        assert dag["owner"] not in ("", "airflow")
        assert dag["tags"]
        assert len(dag["doc"]) > 200
        assert dag["timeout"]
        assert dag["catchup"] is False
        assert all(task["retries"] >= 1 for task in dag["tasks"].values())


def by_id(dag_id: str) -> dict[str, Any]:
    [found] = [dag for dag in described()["dags"] if dag["dag_id"] == dag_id]
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [("extract", "split"), ("split", "prepare"), ("prepare", "train"), ("train", "tune"), ("tune", "evaluate"),
     ("evaluate", "gate"), ("gate", "register"), ("register", "transform"), ("transform", "summary")],
)  # fmt: skip
def test_training_workflow_runs_in_order(before: str, after: str) -> None:
    dag = by_id("sagemaker_training")
    assert after in dag["tasks"][before]["downstream"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("data_engineering.fetch", "data_engineering.transform"),
     ("data_engineering.transform", "ml_engineering.train"), ("ml_engineering.train", "ml_engineering.validate"),
     ("ml_engineering.validate", "ml_engineering.accept"), ("ml_engineering.accept", "ml_engineering.register"),
     ("ml_engineering.register", "build"), ("build", "deploy"), ("deploy", "summary"), ("summary", "clean_up")],
)  # fmt: skip
def test_pet_detection_deploys_only_what_was_accepted_and_cleans_up_last(before: str, after: str) -> None:
    assert after in by_id("pet_detection")["tasks"][before]["downstream"]
