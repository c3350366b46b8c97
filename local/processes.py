"""Processes that this platform started: each has a record on disk, so that they can be found after any crash.

A record holds the pid and when the process started; a pid alone may belong to somebody else by now.
Every process runs in a session of its own, so that its descendants can be ended with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from local.paths import LocalPaths
from local.state_file import write_whole

POLL_SECONDS = 0.05
KILL_SECONDS = 10
# Clocks of /proc and of psutil differ by less than this.
SAME_START_SECONDS = 0.5
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Of what follows the program's name in /proc/PID/stat: the 22nd field, see proc(5).
START_TICKS = 19


def start(
    paths: LocalPaths,
    name: str,
    argv: Sequence[str],
    *,
    log_file: Path,
    working_directory: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to `log_file`, and record it.

    Raises OSError when it can't be started. `environment` replaces this process's own.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            list(argv),
            cwd=working_directory,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record(paths, name, process.pid, argv)
    return process


def record(paths: LocalPaths, name: str, pid: int, argv: Sequence[str]) -> None:
    """Write down that a process of this platform runs under `pid`."""
    paths.run.mkdir(parents=True, exist_ok=True)
    try:
        started_at = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return
    entry = {"name": name, "pid": pid, "start": _start(pid), "started_at": started_at, "argv": list(argv)}
    write_whole(_file(paths, name), entry)


def forget(paths: LocalPaths, name: str) -> None:
    """Remove the record of a process that has ended."""
    _file(paths, name).unlink(missing_ok=True)


def is_running(paths: LocalPaths, name: str) -> bool:
    """Whether the recorded process still is the one that was started."""
    return _living(paths, name) is not None


def pid_of(paths: LocalPaths, name: str) -> int | None:
    """The pid of a recorded process that still runs."""
    process = _living(paths, name)
    return process.pid if process else None


def stop(paths: LocalPaths, name: str, *, timeout_seconds: float) -> bool:
    """End a recorded process: SIGTERM to itself alone, after the time-out SIGKILL to all of its session.

    Descendants that outlive it are killed. Returns whether it was running.
    """
    process = _living(paths, name)
    if process is None:
        forget(paths, name)
        return False
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        process.send_signal(signal.SIGTERM)
    _wait_gone(process, timeout_seconds)
    kill_session(process.pid)
    _wait_gone(process, KILL_SECONDS)
    forget(paths, name)
    return True


def kill_session(pid: int) -> None:
    """SIGKILL every process of the session that `pid` leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def reap(paths: LocalPaths, *, keep: tuple[str, ...] = ()) -> list[str]:
    """Kill every recorded process that is left, newest first, and return their names.

    Names that begin with one of `keep` are left alone.
    """
    recorded = [entry["name"] for entry in reversed(list(_records(paths)))]
    names = [name for name in recorded if not keep or not name.startswith(keep)]
    return [name for name in names if stop(paths, name, timeout_seconds=0)]


def all_pids(paths: LocalPaths) -> list[int]:
    """The pids of all recorded processes that run, and of their descendants."""
    found: dict[int, None] = {}
    for entry in _records(paths):
        process = _living(paths, entry["name"])
        if process is None:
            continue
        found[process.pid] = None
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= dict.fromkeys(child.pid for child in process.children(recursive=True))
    return list(found)


def _file(paths: LocalPaths, name: str) -> Path:
    return paths.run / f"{name}.json"


def _records(paths: LocalPaths) -> Iterator[dict[str, Any]]:
    if not paths.run.is_dir():
        return
    for file in sorted(paths.run.glob("*.json"), key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(ValueError, FileNotFoundError):
            yield json.loads(file.read_text())


def _living(paths: LocalPaths, name: str) -> psutil.Process | None:
    try:
        entry = json.loads(_file(paths, name).read_text())
        process = psutil.Process(entry["pid"])
        return process if _is_same(process, entry) and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def _is_same(process: psutil.Process, entry: dict[str, Any]) -> bool:
    # A record without a start is of another system than Linux, or was made before there were any.
    if start := entry.get("start"):
        return bool(_start(process.pid) == start)
    return bool(abs(process.create_time() - entry["started_at"]) < SAME_START_SECONDS)


def _start(pid: int) -> str | None:
    """The boot and the tick after it at which a process started; None where the system doesn't tell them.

    A time of day would not do: Linux counts it back from now, so that it moves whenever the clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{BOOT_ID.read_text().strip()} {fields[START_TICKS]}"
    except OSError:
        return None


def _wait_gone(process: psutil.Process, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(POLL_SECONDS)
