"""What the laptop's commands take from the account before they deploy, and what they keep of it on disk."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local import processes
from local.paths import LocalPaths
from local.ports import free_port
from ops import cdk, engine, laptop
from ops.console import OperatorError
from ops.laptop import is_changing


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalPaths:
    paths = LocalPaths(tmp_path / "local", port=free_port())
    monkeypatch.setattr(laptop, "local_paths", lambda: paths)
    return paths


def refuse(*_: Any, **__: Any) -> None:
    raise OperatorError("no further")


@pytest.mark.parametrize(
    ("stack_status", "expected"),
    [
        ("CREATE_IN_PROGRESS", True),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", True),
        ("UPDATE_ROLLBACK_IN_PROGRESS", True),
        ("CREATE_COMPLETE", False),
        ("UPDATE_ROLLBACK_COMPLETE", False),
        # A deployment killed between making a new stack's change set and executing it leaves this for ever.
        ("REVIEW_IN_PROGRESS", False),
    ],
)
def test_stack_in_review_is_not_waited_for(stack_status: str, expected: bool) -> None:
    assert is_changing(stack_status) is expected


def test_up_closes_the_state_to_others(paths: LocalPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptop, "ensure_node", refuse)
    paths.root.mkdir(mode=0o755)
    with pytest.raises(OperatorError, match="no further"):
        laptop.up()
    assert paths.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("left", ["", '{"environment": "local", "finger', "[]"])
def test_unreadable_record_means_another_deployment(
    paths: LocalPaths, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    target: Any = SimpleNamespace(name="local", is_local=True)
    for module, names in (
        (cdk, ("synth", "deploy")),
        (engine, ("build_images",)),
        (laptop, ("_bootstrap_if_needed", "_wait_until_settled")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(laptop, "fingerprint", lambda _: "wanted")
    monkeypatch.setattr(laptop, "_all_deployed", lambda _: True)
    paths.make_root()
    record = paths.root / "deployed.json"
    record.write_text(left)
    laptop._require_own_account(target)
    laptop.deploy_if_changed(target, [])
    assert json.loads(record.read_text()) == {"environment": "local", "fingerprint": "wanted"}
    monkeypatch.setattr(cdk, "synth", refuse)
    assert laptop.deploy_if_changed(target, []) == 0


def test_jobs_outlive_an_account_that_was_killed(paths: LocalPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = {
        name: subprocess.Popen(sleeper, start_new_session=True)
        for name in ("ecs-webserver", "sagemaker-training-one")
    }
    for name, process in started.items():
        processes.record(paths, name, process.pid, sleeper)
    monkeypatch.setattr(processes, "start", refuse)
    try:
        with pytest.raises(OperatorError, match="no further"):
            laptop.start_account()
        assert [name for name in started if processes.is_running(paths, name)] == ["sagemaker-training-one"]
    finally:
        laptop._started_here.clear()
        for process in started.values():
            process.kill()
            process.wait()
