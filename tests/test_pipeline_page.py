"""The pipeline that the documentation gives: readable, by the rules it states, with commands that exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from stacks.config import load_environment

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "delivery-pipeline.md").read_text()


def workflow() -> dict[str, Any]:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return dict(yaml.safe_load(block))


def test_job_runs_in_the_github_environment_that_the_role_trusts() -> None:
    job = workflow()["jobs"]["push"]
    assert f"repo:acme/dags:environment:{job['environment']}" in PAGE
    config = load_environment(job["environment"])
    assert f"--application-name {config.prefix}-dags --deployment-group-name {config.prefix}-bastion" in PAGE


def test_token_is_the_only_thing_that_may_be_written_and_nothing_is_imported_with_credentials() -> None:
    assert workflow()["permissions"] == {"contents": "read", "id-token": "write"}
    steps = workflow()["jobs"]["push"]["steps"]
    [logs_in] = [number for number, step in enumerate(steps) if "credentials" in step.get("uses", "")]
    assert not [step for step in steps[logs_in:] if "./updraft" in step.get("run", "")]


def test_every_command_on_the_page_exists() -> None:
    commands = set(re.findall(r"\./updraft ([a-z]+)", PAGE))
    assert {"check", "bundle"} <= commands
    ran = subprocess.run(
        [sys.executable, "-m", "ops", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [command for command in commands if f" {command} " not in ran.stdout] == []
