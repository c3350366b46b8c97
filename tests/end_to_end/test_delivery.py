"""Delivery on the running platform: a push that is served, one that is refused, a rollback, and who still needs what."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.platform import PATHS, ROOT, client, updraft

pytestmark = [pytest.mark.platform, pytest.mark.usefixtures("demo")]

SECOND = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("second", schedule=None):
    EmptyOperator(task_id="done")
"""


def document(*arguments: str) -> dict[str, Any]:
    ran = updraft(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def pointer() -> str:
    found = client("ssm").get_parameter(Name="/updraft/local/bundle/pointer")
    return str(found["Parameter"]["Value"])


def shared() -> set[str]:
    [folder] = (PATHS.root / "efs").iterdir()
    return {path.name for path in folder.iterdir()}


def copy_of_dags(folder: Path, **more: str) -> Path:
    for source in (ROOT / "dags").rglob("*.py"):
        target = folder / source.relative_to(ROOT / "dags")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    for name, text in more.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_new_dag_is_served_and_gone_after_a_rollback(tmp_path: Path, demo: dict[str, Any]) -> None:
    before = pointer()
    pushed = document("push", "--dags", str(copy_of_dags(tmp_path / "dags", second=SECOND)))
    assert pushed["dag_ids"] == sorted([*demo["push"]["dag_ids"], "second"])
    assert pointer() == pushed["version"]
    run = document("run", "second", "--wait")
    assert run["state"] == "success"
    listed = document("releases")
    assert listed["live"] == pushed["version"]
    assert listed["releases"][0]["deployment_id"] == pushed["deployment_id"]
    assert listed["releases"][0]["kind"] == "push"
    assert listed["releases"][0]["runs"] == 0
    back = document("rollback")
    assert back["version"] == before == pointer()
    assert back["dag_ids"] == demo["push"]["dag_ids"]
    assert updraft("run", "second").returncode == 1


def test_dags_that_do_not_import_never_go_live(tmp_path: Path) -> None:
    before, there = pointer(), shared()
    folder = copy_of_dags(
        tmp_path / "dags", one=SECOND, two=SECOND, three="from airflow.sdk import DAG\ndef ("
    )
    refused = updraft("push", "--dags", str(folder), "--json")
    assert refused.returncode == 1
    error = json.loads(refused.stdout)["error"]
    assert "three.py" in error
    assert "SyntaxError" in error
    assert "AirflowDagDuplicatedIdException" in error
    assert pointer() == before
    assert shared() == there
