"""The agent: gives every build a host, and copies what it reports into the store."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from local import processes
from local.account.context import AccountContext
from local.codebuild.store import Record, Store, public
from local.paths import ROOT
from local.state_file import write_whole

POLL_SECONDS = 0.3


class CodeBuildPlane:
    """Starts after the account's API, from which builds get their source."""

    name = "codebuild"

    def __init__(self, context: AccountContext, store: Store) -> None:
        self._context = context
        self._paths = context.paths
        self._store = store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="codebuild", daemon=True)

    def start(self) -> None:
        """End the builds that the account's last life left unfinished, then run new ones."""
        self._fail_running("the host was restarted")
        self._thread.start()

    def stop(self) -> None:
        """End every build."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._fail_running("the host was stopped")

    def state(self) -> str:
        """`running` while the agent's thread does its work."""
        return "running" if self._thread.is_alive() else "stopped"

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            try:
                with self._store.lock:
                    for build in self._running():
                        self._step(build)
                self._store.save()
            except Exception:
                self._context.logger.exception("the CodeBuild agent failed in one step and goes on")

    def _running(self) -> list[Record]:
        return [build for build in self._store.builds.values() if not build["buildComplete"]]

    def _step(self, build: Record) -> None:
        directory = self._directory(build)
        if not (directory / "build.json").exists():
            self._launch(build, directory)
            return
        if build.get("_stop"):
            (directory / "stop").touch()
        # Read after looking at the process: a status written just before its end is not missed.
        alive = processes.is_running(self._paths, _process_name(build))
        report = _read(directory / "status.json")
        if report is not None and any(build.get(name) != value for name, value in report.items()):
            build |= report
            self._store.changed()
        if not alive and not build["buildComplete"]:
            self._fail(build, "the build's host was lost")
        if build["buildComplete"]:
            self._end(build)

    def _launch(self, build: Record, directory: Path) -> None:
        spec = {
            "build": public(build),
            "artifacts": build["_artifacts"],
            "root": str(self._paths.root),
            "port": self._paths.port,
        }
        self._context.permissions.credentials(build["serviceRole"], directory.name)
        write_whole(directory / "build.json", spec)
        process = processes.start(
            self._paths,
            _process_name(build),
            [sys.executable, "-m", "local.codebuild.build", str(directory)],
            log_file=self._paths.log / "codebuild" / f"{directory.name}.log",
            working_directory=ROOT,
        )
        # Reaped as soon as it ends, so that it is never a zombie.
        threading.Thread(target=process.wait, daemon=True).start()

    def _fail_running(self, reason: str) -> None:
        with self._store.lock:
            for build in self._running():
                self._fail(build, reason)
                self._end(build)
        self._store.save()

    def _fail(self, build: Record, reason: str) -> None:
        now = time.time()
        phase = {"phaseType": "FINALIZING", "phaseStatus": "FAULT", "startTime": now, "endTime": now,
                 "durationInSeconds": 0, "contexts": [{"statusCode": "INTERNAL_ERROR", "message": reason}]}  # fmt: skip
        build["phases"].append(phase)
        build |= {
            "buildStatus": "FAULT",
            "buildComplete": True,
            "currentPhase": "COMPLETED",
            "endTime": now,
        }
        self._store.changed()

    def _end(self, build: Record) -> None:
        processes.stop(self._paths, _process_name(build), timeout_seconds=2)
        shutil.rmtree(self._directory(build), ignore_errors=True)

    def _directory(self, build: Record) -> Path:
        return self._paths.codebuild / "builds" / str(build["id"]).rpartition(":")[2]


def _process_name(build: Record) -> str:
    return f"codebuild-{build['id'].rpartition(':')[2]}"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
