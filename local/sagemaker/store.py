"""What SageMaker knows: resources by kind and name, in the shapes of the API's descriptions.

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

    resources: dict[str, dict[str, Record]]
    tags: dict[str, list[dict[str, str]]]

    def __init__(self, file: Path) -> None:
        super().__init__(file, resources={}, tags={})

    def of(self, kind: str) -> dict[str, Record]:
        """Resources of one kind, by name."""
        return self.resources.setdefault(kind, {})

    def tags_of(self, arn: str) -> dict[str, str]:
        """The tags of a resource, by their keys."""
        return {tag["Key"]: tag["Value"] for tag in self.tags.get(arn, ())}
