"""Tests that need Airflow itself run in its own environment, each file in a process of its own."""

from pathlib import Path

import pytest

from tests.image_environment import run_case

# What starts servers of its own takes its time.
SLOW = {"case_lineage_recorder"}
CASES = [
    pytest.param(case, id=case.stem, marks=[pytest.mark.account] if case.stem in SLOW else [])
    for case in sorted((Path(__file__).parent / "with_airflow").glob("case_*.py"))
]


@pytest.mark.parametrize("case", CASES)
def test_case_passes(case: Path, tmp_path: Path) -> None:
    assert run_case(case, tmp_path, "airflow") > 0
