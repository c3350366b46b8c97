"""What ECS knows: clusters, task definitions, services and tasks, in the API's own shapes.

Keys that begin with an underscore are ours and never leave through the API. Everybody who reads or changes the state
holds `lock`; `changed()` marks it for the next save.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local.state_file import SavedTables

Record = dict[str, Any]


class Store(SavedTables):
    """The state, and its file."""

    clusters: dict[str, Record]
    task_definitions: dict[str, Record]
    services: dict[str, Record]
    tasks: dict[str, Record]
    client_tokens: dict[str, list[str]]

    def __init__(self, file: Path) -> None:
        super().__init__(file, clusters={}, task_definitions={}, services={}, tasks={}, client_tokens={})

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
