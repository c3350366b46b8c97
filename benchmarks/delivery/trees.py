"""Folders of DAGs that the benchmark pushes."""

from __future__ import annotations

from pathlib import Path

# A DAG, a helper that it imports and a data file, each with the version's mark; every task says which marks it saw,
# the second one some seconds after the first, so that a switch can come between them.
THREE_FILES = """
import datetime
from pathlib import Path

from airflow.sdk import DAG, task

from helpers.mark import MARK as HELPER

DAG_MARK = "{mark}"


@task(retries=0)
def look(before):
    import importlib, time
    seen = list(before)
    for _ in range(2):
        data = (Path(__file__).parent / "data" / "mark.txt").read_text().strip()
        helper = importlib.reload(importlib.import_module("helpers.mark")).MARK
        seen += [DAG_MARK, HELPER, helper, data]
        time.sleep({pause})
    return seen


with DAG("{dag_id}", schedule=None, tags=["bench"], description="{mark}", max_active_runs=1000):
    look(look(look([])))
"""
SMALL = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("{dag_id}", schedule=None, tags=["bench"], description="{mark}", max_active_runs=1000):
    EmptyOperator(task_id="done")
"""


def three_file_dags(folder: Path, mark: str, *, dags: int, pause_seconds: float) -> list[str]:
    """Write DAGs of three files each that share helper and data; returns their ids."""
    (folder / "helpers").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "helpers" / "__init__.py").write_text("")
    (folder / "helpers" / "mark.py").write_text(f'MARK = "{mark}"\n')
    (folder / "data" / "mark.txt").write_text(mark)
    ids = [f"three_files_{number}" for number in range(dags)]
    for dag_id in ids:
        text = THREE_FILES.format(dag_id=dag_id, mark=mark, pause=pause_seconds)
        (folder / f"{dag_id}.py").write_text(text)
    return ids


def small_dags(folder: Path, mark: str, *, dags: int, changed: int) -> list[str]:
    """Write DAGs of one file each, of which one, by its number, has the mark; returns their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"small_{number}" for number in range(dags)]
    for number, dag_id in enumerate(ids):
        own = mark if number == changed else "same"
        (folder / f"{dag_id}.py").write_text(SMALL.format(dag_id=dag_id, mark=own))
    return ids
