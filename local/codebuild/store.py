"""What CodeBuild knows: projects by name and builds by id, in the API's own shapes.

Keys that begin with an underscore are ours and never leave through the API. Whoever reads or changes the state holds
`lock`; `changed()` marks it for the next save.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local.state_file import SavedTables

Record = dict[str, Any]


class Store(SavedTables):
    """The state, and its file."""

    projects: dict[str, Record]
    builds: dict[str, Record]
    tokens: dict[str, str]

    def __init__(self, file: Path) -> None:
        super().__init__(file, projects={}, builds={}, tokens={})


def public(record: Record) -> Record:
    """A record without what is ours."""
    return {key: value for key, value in record.items() if not key.startswith("_")}
