"""Import-tests a release as the dag-processor would parse it, in a fresh process with limits and without network.

The processes are forked from one that has Airflow imported (runtime/import_test_child.py), so a test costs what the
DAG files themselves cost. Nothing of Airflow is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WALL_SECONDS = 60.0
# One file that hangs in Python is named by Airflow itself before the whole test ends.
FILE_SECONDS = 20.0
MEMORY_MIB = 512
START_SECONDS = 60.0
# What a DAG file may read of its environment while it is imported; no log-in is among it.
PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "TMPDIR", "AWS_REGION", "AWS_DEFAULT_REGION", "UPDRAFT_PROJECT",
             "UPDRAFT_ENVIRONMENT", "UPDRAFT_SSM_PREFIX", "UPDRAFT_CLUSTER")  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Of one test: seconds on the clock, seconds for one file, MiB of memory beyond what Airflow itself has."""

    wall_seconds: float = WALL_SECONDS
    file_seconds: float = FILE_SECONDS
    memory_mib: int = MEMORY_MIB


@dataclass(frozen=True)
class Report:
    """What a release holds: the sorted `dag_ids`, and `errors`, each as `{file}: {what is wrong}`."""

    dag_ids: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class ImportTester:
    """Runs tests one after the other; use it as a context, or call `close`.

    `python` is an interpreter that has Airflow; by default this one.
    """

    def __init__(self, limits: Limits | None = None, *, python: str | Path = sys.executable) -> None:
        self._limits = limits or Limits()
        self._python = str(python)
        self._home = tempfile.TemporaryDirectory(prefix="updraft-import-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ImportTester:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to import Airflow, so that the first test need not wait for it."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [self._python, "-m", "runtime.import_test_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(os.environ, Path(self._home.name), self._limits),
                start_new_session=True,
            )

    def close(self) -> None:
        """End the process and whatever a test left running."""
        self._stop()
        self._home.cleanup()

    def test(self, folder: Path) -> Report:
        """Import every DAG file below `folder` and report what was found; never raises for what a DAG file does."""
        self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        request = {"folder": str(folder), "memory_mib": self._limits.memory_mib}
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        return self._follow(process)

    def _follow(self, process: subprocess.Popen[bytes]) -> Report:
        """Read events until the test ends; a test that overstays or dies is told by the file that it was in."""
        file = "before the first file"
        events = _Events(process)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                event = events.next(deadline - time.monotonic())
            except TimeoutError:
                self._stop()
                self.start()
                return Report(errors=[f"{file}: the import did not end in {self._limits.wall_seconds:.0f} s"])
            if event is None:
                self._stop()
                return Report(errors=[f"{file}: the import test's own process ended"])
            if event["event"] == "started":
                deadline = time.monotonic() + self._limits.wall_seconds
            elif event["event"] == "file":
                file = event["file"]
            elif event["event"] == "report":
                return Report(dag_ids=sorted(event["dag_ids"]), errors=sorted(event["errors"]))
            elif event["event"] == "died":
                return Report(errors=[f"{file}: the importing process ended by itself ({event['how']})"])

    def _stop(self) -> None:
        if self._process is not None:
            # Its tests are in its session, and so is what they started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._process.wait()
            self._process = None


def child_environment(given: Mapping[str, str], home: Path, limits: Limits) -> dict[str, str]:
    """The environment of the importing process: no secret, no database but an empty file of its own."""
    return {name: given[name] for name in PASSED_ON if name in given} | {
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(limits.file_seconds),
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "4",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class _Events:
    """What the child tells, one JSON document a line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._descriptor = process.stdout.fileno()
        self._buffered = b""

    def next(self, seconds: float) -> dict[str, Any] | None:
        """The next event; None when the child has ended. Raises TimeoutError when none comes in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffered:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            data = os.read(self._descriptor, 64 * 1024)
            if not data:
                return None
            self._buffered += data
        line, _, self._buffered = self._buffered.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event
