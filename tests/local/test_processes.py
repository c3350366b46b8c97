"""Started processes are found again, ended with all that they started, and never mistaken for others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local import processes
from local.paths import LocalPaths

SLEEPER = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)",
]


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[LocalPaths]:
    paths = LocalPaths(tmp_path)
    yield paths
    processes.reap(paths)
    while _started:
        _started.pop().wait(10)


_started: list[subprocess.Popen[bytes]] = []


def start(paths: LocalPaths, name: str) -> int:
    process = processes.start(
        paths, name, SLEEPER, log_file=paths.log / "x.log", working_directory=paths.root
    )
    _started.append(process)
    deadline = time.monotonic() + 10
    while not psutil.Process(process.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process.pid


def test_stop_ends_the_process_and_what_it_started(paths: LocalPaths) -> None:
    pid = start(paths, "one")
    [child] = psutil.Process(pid).children()
    assert processes.is_running(paths, "one")
    assert sorted(processes.all_pids(paths)) == sorted([pid, child.pid])
    assert processes.stop(paths, "one", timeout_seconds=5)
    assert not processes.is_running(paths, "one")
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list(paths.run.glob("*.json")) == []


def test_reap_leaves_alone_what_is_kept(paths: LocalPaths) -> None:
    start(paths, "one")
    start(paths, "account")
    assert processes.reap(paths, keep=("account",)) == ["one"]
    assert processes.is_running(paths, "account")


def test_pid_that_belongs_to_somebody_else_is_not_touched(paths: LocalPaths) -> None:
    stranger = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        paths.run.mkdir(parents=True)
        entry = {"name": "one", "pid": stranger.pid, "started_at": 1.0, "argv": []}
        (paths.run / "one.json").write_text(json.dumps(entry))
        assert not processes.is_running(paths, "one")
        assert not processes.stop(paths, "one", timeout_seconds=0)
        assert stranger.poll() is None
    finally:
        os.killpg(stranger.pid, 9)
        stranger.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start is kept as a time of day, and stays")
def test_process_is_found_again_after_the_clock_was_set(
    paths: LocalPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(paths, "one")
    told = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: told(self) + 3600)
    assert processes.is_running(paths, "one")
    assert processes.stop(paths, "one", timeout_seconds=5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no boot is recorded")
def test_same_pid_and_tick_after_another_boot_is_somebody_else(paths: LocalPaths) -> None:
    start(paths, "one")
    file = paths.run / "one.json"
    entry = json.loads(file.read_text())
    boot, tick = entry["start"].split()
    file.write_text(json.dumps(entry | {"start": f"{boot[::-1]} {tick}"}))
    assert not processes.is_running(paths, "one")
    file.write_text(json.dumps(entry))


def test_record_of_before_there_were_starts_is_understood(paths: LocalPaths) -> None:
    pid = start(paths, "one")
    entry = {"name": "one", "pid": pid, "started_at": psutil.Process(pid).create_time(), "argv": SLEEPER}
    (paths.run / "one.json").write_text(json.dumps(entry))
    assert processes.stop(paths, "one", timeout_seconds=5)


def test_broken_record_stops_nobody(paths: LocalPaths) -> None:
    paths.run.mkdir(parents=True)
    (paths.run / "one.json").write_text("{")
    assert processes.reap(paths) == []
