"""`check` says about a folder what a push would, with the place of every error."""

import re
from pathlib import Path

import pytest

from local.paths import LocalPaths
from ops import checking
from ops.console import OperatorError
from runtime.import_test import Limits

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
GOOD = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
with DAG("{dag_id}"):
    first, second = EmptyOperator(task_id="first"), EmptyOperator(task_id="second")
    first >> second
"""
# file name → its text, and what is said about it
BAD = {
    "cycle.py": (GOOD.format(dag_id="round") + "    second >> first\n", ":4: AirflowDagCycleException: Cycle detected in Dag: round"),
    "hangs.py": ("from airflow.sdk import DAG\nimport time\ntime.sleep(600)\n", ":3: .*Timeout"),
    "helped.py": ("from airflow.sdk import DAG\nimport a_helper\n", None),
    "a_helper.py": ("\n\nVALUE = 1 / 0\n", r":3: ZeroDivisionError: division by zero \(imported by .*helped\.py\)"),
    "nobody.py": ("from airflow.sdk import DAG\nimport nobody_has_it.at_all\n", ":2: ModuleNotFoundError: No module named 'nobody_has_it'"),
    "ours.py": ("from airflow.sdk import DAG\nimport stacks.config\n", ":2: ModuleNotFoundError: No module named 'stacks'"),
    "syntax.py": ("from airflow.sdk import DAG\ndef f(:\n", ":2: SyntaxError: invalid syntax"),
    "twice.py": (GOOD.format(dag_id="good"), ":4: AirflowDagDuplicatedIdException: Ignoring DAG good"),
    "wrong.py": ("from airflow.sdk import DAG\nDAG('has space')\n", ":2: ValueError: The key 'has space' has to be made of"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    monkeypatch.setattr(checking, "ensure_environment", lambda _: PYTHON)


def test_every_error_is_told_with_its_file_and_line_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD.format(dag_id="good"))
    for name, (text, _) in BAD.items():
        (tmp_path / name).write_text(text)
    result = checking.check(tmp_path, limits=Limits(file_seconds=2))
    assert result["dag_ids"] == ["good"]
    told = [str(checking.Finding(**error)) for error in result["errors"]]
    for name, (_, wanted) in BAD.items():
        if wanted is not None:
            pattern = re.escape(f"{tmp_path}/{name}") + wanted
            assert any(re.match(pattern, line) for line in told), (name, told)
    assert len(told) == len(BAD) - 1
    [missing] = [error for error in result["errors"] if "nobody_has_it" in error["error"]]
    assert "docker/airflow/requirements.in" in missing["advice"]
    assert (ROOT / "docker" / "airflow" / "requirements.in").is_file()


def test_shipped_dags_pass_as_the_version_that_a_push_would_make(tmp_path: Path) -> None:
    result = checking.check(ROOT / "dags")
    assert result["errors"] == []
    assert "sagemaker_training" in result["dag_ids"]
    assert checking.build(ROOT / "dags", tmp_path).archive.name == f"{result['version']}.zip"


@pytest.mark.parametrize("make", ["nothing", "empty"])
def test_folder_that_can_not_be_a_bundle_is_refused(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "dags"
    if make == "empty":
        folder.mkdir()
    with pytest.raises(OperatorError, match=r"no such folder|can't be pushed"):
        checking.check(folder)
