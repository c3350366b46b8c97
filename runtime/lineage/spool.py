"""Events on the container's own disk: whoever writes one never waits for whoever reads it."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# About 20 MiB, and far more than any outage of the tracking server that events survive.
MOST_EVENTS = 5_000
_numbers = itertools.count()


class Spool:
    """A folder with one file for each event; `put` is called from any process of the container, the rest from one."""

    def __init__(self, folder: Path | None = None, *, most: int = MOST_EVENTS) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / "updraft-lineage"
        self.most = most

    def put(self, event: Mapping[str, Any]) -> bool:
        """Keep an event; False when the spool is full and it was dropped. Raises OSError where nothing can be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(os.listdir(self.folder)) >= self.most:  # noqa: PTH208
            return False
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}.json"
        partial = self.folder / f".{name}"
        partial.write_text(json.dumps(event, default=str))
        # Whoever lists the folder sees a whole event or none.
        partial.rename(self.folder / name)
        return True

    def waiting(self) -> list[Path]:
        """The events that wait, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("[0-9]*.json"))

    @staticmethod
    def read(file: Path) -> dict[str, Any]:
        """One event."""
        event: dict[str, Any] = json.loads(file.read_text())
        return event

    @staticmethod
    def age_seconds(file: Path) -> float:
        """How long ago an event was put."""
        return time.time() - int(file.name.partition("-")[0]) / 1e9
