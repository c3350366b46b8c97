"""Programs of a test that run in the environment of an image, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from local.paths import ROOT
from ops.bootstrap import environment_python


def image_python(image: str) -> Path:
    """The interpreter of an image's environment, which must have been made."""
    python = environment_python(image)
    assert python.exists(), f"the environment of image '{image}' is not there; make it with: ./updraft test"
    return python


def airflow_variables(home: Path, **more: str) -> dict[str, str]:
    """The whole environment of a program that uses Airflow, with a home of its own."""
    return {
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AWS_DEFAULT_REGION": "us-east-1",
        **more,
    }


def run_case(case: Path, home: Path, image: str, **variables: str) -> int:
    """Run one file of test cases; returns how many passed, and fails with the others."""
    ran = subprocess.run(
        [image_python(image), case],
        cwd=ROOT,
        env=airflow_variables(home, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    [told] = re.findall(r"^Ran (\d+) tests? in ", ran.stderr, re.MULTILINE)
    return int(told)
