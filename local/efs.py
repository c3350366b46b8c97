"""Where the emulated account keeps the contents of EFS file systems."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol


class StatePaths(Protocol):
    """What this module needs of `local.paths.LocalPaths`."""

    @property
    def state_directory(self) -> Path: ...


def efs_root(paths: StatePaths, file_system_id: str) -> Path:
    """Return the folder that holds the file system's root directory, making it when it is missing.

    Everything that mounts `file_system_id` (`fs-…`), be it a container or an instance, sees this folder.
    """
    if not re.fullmatch(r"fs-[0-9a-f]{8,40}", file_system_id):
        raise ValueError(f"file system id: {file_system_id!r} is not of the form fs-0123456789abcdef0")
    root = paths.state_directory / "efs" / file_system_id
    root.mkdir(parents=True, exist_ok=True)
    return root
