"""What ECS knows: clusters, task definitions, services and tasks, in the API's own shapes.

Keys that begin with an underscore are ours and never leave through the API. Everybody who reads or changes the state
holds `lock`; `changed()` marks it for the next save.
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
        self.clusters: dict[str, Record] = {}
        self.task_definitions: dict[str, Record] = {}
        self.services: dict[str, Record] = {}
        self.tasks: dict[str, Record] = {}
        self.client_tokens: dict[str, list[str]] = {}
        if file.is_file():
            self.__dict__.update(json.loads(file.read_text()))

    def changed(self) -> None:
        """Note that the state differs from its file."""
        self._dirty = True

    def save(self) -> None:
        """Write the state when it has changed, all of it or nothing."""
        with self.lock:
            if not self._dirty:
                return
            self._dirty = False
            text = json.dumps(
                {
                    "clusters": self.clusters,
                    "task_definitions": self.task_definitions,
                    "services": self.services,
                    "tasks": self.tasks,
                    "client_tokens": self.client_tokens,
                }
            )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self._file)

    def service_tasks(self, service: Record) -> list[Record]:
        """The tasks of a service that have not stopped."""
        group, cluster = f"service:{service['serviceName']}", service["clusterArn"]
        return [
            task
            for task in self.tasks.values()
            if task["group"] == group and task["clusterArn"] == cluster and task["lastStatus"] != "STOPPED"
        ]


def public(record: Record) -> Record:
    """A record without what is ours."""
    return {key: value for key, value in record.items() if not key.startswith("_")}


def is_steady(task: Record) -> bool:
    """Whether a task runs and passes its health check, where it has one."""
    wanted = "HEALTHY" if task["_has_health_check"] else "UNKNOWN"
    return bool(task["lastStatus"] == "RUNNING" and task["healthStatus"] == wanted)
