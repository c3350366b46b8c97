"""Releases in a shared directory, and a pointer whose answers a test sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.release_check import version_of


class Ssm:
    """A parameter; `failure` is raised, `stale` makes it answer what it answered before."""

    def __init__(self) -> None:
        self.history = ["none"]
        self.failure: Exception | None = None
        self.stale = False

    def get_parameter(self, *, Name: str) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        number = len(self.history) - (1 if self.stale else 0)
        return {"Parameter": {"Name": Name, "Value": self.history[number - 1], "Version": number}}


def stage(releases: Path, files: Mapping[str, str]) -> str:
    """Put a whole release in the shared directory at once; returns its version."""
    partial = releases / ".partial"
    for name, content in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_text(content)
    digests = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()}
    version = version_of(digests)
    (partial / ".release.json").write_text(json.dumps({"version": version, "files": digests}))
    partial.rename(releases / version)
    return version
