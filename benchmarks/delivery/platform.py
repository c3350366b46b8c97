"""Ways into the running platform: the command line, the account, and Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from ops.airflow_api import AirflowApi
from ops.bootstrap import ROOT
from ops.target import Target, local_paths, target_of

COMMAND_SECONDS = 600
POLL_SECONDS = 0.1


class CommandError(Exception):
    """A command failed, with what it said."""


class Platform:
    """The local platform, which has to be up."""

    @cached_property
    def target(self) -> Target:
        return target_of("local")

    @cached_property
    def airflow(self) -> AirflowApi:
        return self.target.airflow()

    def updraft(self, *arguments: str) -> dict[str, Any]:
        """Run a command as its user does and return its document; raises CommandError with its error."""
        ran = subprocess.run(
            [ROOT / "updraft", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        document: dict[str, Any] = json.loads(ran.stdout or "{}")
        if ran.returncode != 0:
            raise CommandError(document.get("error", ran.stderr[-1000:]))
        return document

    @property
    def live(self) -> str:
        """The version that the pointer names."""
        name = self.target.output("delivery", "PointerParameter")
        return str(self.target.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])

    @property
    def releases_folder(self) -> Path:
        """The shared file system, as the bastion sees it."""
        return local_paths().root / "efs" / self.target.output("storage", "ReleasesFileSystemId")

    def served_versions(self) -> set[str]:
        """The versions of every DAG that Airflow shows as active."""
        return {str(dag["bundle_version"]) for dag in self.airflow.dags()}

    def start_run(self, dag_id: str) -> dict[str, Any]:
        """Start a run, with the version that it got."""
        return self.airflow.trigger(dag_id, {})


def wait_until(done: Callable[[], bool], *, seconds: float, what: str) -> float:
    """Wait for something and return how long it took; raises TimeoutError past the limit."""
    started = time.monotonic()
    while not done():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started


def tell(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)
