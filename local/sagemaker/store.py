"""What SageMaker knows: resources by kind and name, in the shapes of the API's descriptions.

Keys that begin with an underscore are ours and never leave through the API. Whoever reads or changes the state holds
`lock`; `changed()` marks it for the next save.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Store:
    """The state, and its file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._dirty = False
        self.lock = threading.RLock()
        self.resources: dict[str, dict[str, Record]] = {}
        self.tags: dict[str, list[dict[str, str]]] = {}
        if file.is_file():
            saved = json.loads(file.read_text())
            self.resources, self.tags = saved["resources"], saved["tags"]

    def of(self, kind: str) -> dict[str, Record]:
        """Resources of one kind, by name."""
        return self.resources.setdefault(kind, {})

    def changed(self) -> None:
        """Note that the state differs from its file."""
        self._dirty = True

    def save(self) -> None:
        """Write the state when it has changed, all of it or nothing."""
        with self.lock:
            if not self._dirty:
                return
            self._dirty = False
            text = json.dumps({"resources": self.resources, "tags": self.tags})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self._file)
