"""State on disk that is whole at every moment, whoever is killed while writing it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any


def write_whole(file: Path, document: Any, *, mode: int = 0o600) -> None:
    """Put a JSON document in a file's place in one step; a reader sees the old one or the new one.

    Only its owner reads it unless `mode` says otherwise. Safe for several writers at once: each has a temporary file
    of its own.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w") as stream:
            os.fchmod(handle, mode)
            json.dump(document, stream)
        Path(partial).replace(file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(partial).unlink()
        raise


class SavedTables:
    """Tables of a service, each an attribute of this object, and the file that keeps them.

    Whoever reads or changes a table holds `lock`; `changed()` marks the tables for the next `save()`.
    """

    def __init__(self, file: Path, **tables: Any) -> None:
        self._file = file
        self._dirty = False
        self._names = tuple(tables)
        self.lock = threading.RLock()
        saved = json.loads(file.read_text()) if file.is_file() else {}
        for name, empty in tables.items():
            setattr(self, name, saved.get(name, empty))

    def changed(self) -> None:
        """Note that the tables differ from their file."""
        self._dirty = True

    def save(self) -> None:
        """Write the tables when they have changed, all of them or nothing."""
        with self.lock:
            if not self._dirty:
                return
            write_whole(self._file, {name: getattr(self, name) for name in self._names})
            self._dirty = False
