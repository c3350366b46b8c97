"""Tests that need Airflow itself run in its own environment, each file in a process of its own."""

import os
import subprocess
from pathlib import Path

import pytest

from local.paths import LocalPaths

ROOT = Path(__file__).resolve().parents[2]
PYTHON = LocalPaths(ROOT / ".updraft" / "local").environments / "airflow" / "bin" / "python"
# What starts servers of its own takes its time.
SLOW = {"case_lineage_recorder"}
CASES = [
    pytest.param(case, id=case.stem, marks=[pytest.mark.account] if case.stem in SLOW else [])
    for case in sorted((Path(__file__).parent / "with_airflow").glob("case_*.py"))
]


@pytest.mark.parametrize("case", CASES)
def test_case_passes(case: Path, tmp_path: Path) -> None:
    assert PYTHON.exists(), "the environment of image 'airflow' is not there; make it with: ./updraft test"
    ran = subprocess.run(
        [PYTHON, case],
        cwd=ROOT,
        env={
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
