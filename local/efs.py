"""Where the emulated account keeps the contents of EFS file systems, and how containers see them.

An instance sees a file system itself; containers see it through a mount, whose view may be late as NFS's is.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Protocol

LOOK_SECONDS = 0.25


class StatePaths(Protocol):
    """What this module needs of `local.paths.LocalPaths`."""

    @property
    def state_directory(self) -> Path: ...


def efs_root(paths: StatePaths, file_system_id: str) -> Path:
    """Return the folder that holds the file system's root directory, making it when it is missing."""
    if not re.fullmatch(r"fs-[0-9a-f]{8,40}", file_system_id):
        raise ValueError(f"file system id: {file_system_id!r} is not of the form fs-0123456789abcdef0")
    root = paths.state_directory / "efs" / file_system_id
    root.mkdir(parents=True, exist_ok=True)
    return root


def efs_mount(paths: StatePaths, file_system_id: str) -> Path:
    """Return the mount of the file system in containers: the file system itself unless its view is delayed."""
    mount = paths.state_directory / "efs-mounts" / file_system_id
    root = efs_root(paths, file_system_id)
    if not mount.is_symlink():
        _point(mount, root)
    return mount


class DelayedViews:
    """Lets containers see new entries of a file system's root only after a delay, and all others as they are.

    Entries there are folders that never change; that is why a view of links to them is enough.
    """

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths
        self._folder = paths.state_directory / "efs-views"
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._seen: dict[Path, float] = {}

    def set_delay(self, seconds: float) -> None:
        """Begin to delay by so many seconds; 0 ends it."""
        self._stop()
        if seconds == 0:
            return
        # What is there already has been seen.
        self._seen = {entry: float("-inf") for root in self._roots() for entry in root.iterdir()}
        self._look(seconds)
        for root in self._roots():
            _point(self._paths.state_directory / "efs-mounts" / root.name, self._folder / root.name)
        self._ended.clear()
        self._thread = threading.Thread(target=self._follow, args=(seconds,), name="efs-views", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for root in self._roots():
            _point(self._paths.state_directory / "efs-mounts" / root.name, root)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _roots(self) -> list[Path]:
        return sorted((self._paths.state_directory / "efs").glob("fs-*"))

    def _follow(self, seconds: float) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look(seconds)

    def _look(self, seconds: float) -> None:
        for root in self._roots():
            view = self._folder / root.name
            view.mkdir(parents=True, exist_ok=True)
            for entry in root.iterdir():
                first_seen = self._seen.setdefault(entry, time.monotonic())
                if time.monotonic() - first_seen >= seconds and not (view / entry.name).is_symlink():
                    (view / entry.name).symlink_to(entry)
            for link in view.iterdir():
                if not link.exists():
                    link.unlink()
        for entry in [entry for entry in self._seen if not entry.exists()]:
            del self._seen[entry]


def _point(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(target)
    new.replace(link)
