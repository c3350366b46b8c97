"""CodeDeploy's applications, deployment groups, revisions and deployments, kept in one JSON file."""

from __future__ import annotations

import copy
import json
import secrets
import string
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.state_file import write_whole

Item = dict[str, Any]
FINAL_STATES = {"Succeeded", "Failed", "Stopped"}


class Store:
    """All state of the service; change it inside `changing()`, which writes it when the block ends.

    `applications` are by name, `groups` by application and name, `deployments` by id in order of creation;
    `targets` of a deployment are by instance id. Items have the shapes of the API, times are Unix seconds.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.RLock()
        self.applications: dict[str, Item] = {}
        self.groups: dict[str, dict[str, Item]] = {}
        self.deployments: dict[str, Item] = {}
        self.targets: dict[str, dict[str, Item]] = {}
        self.revisions: dict[str, list[Item]] = {}
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            for name in self._tables():
                setattr(self, name, content[name])

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change, and write the state when it has been made."""
        with self._lock:
            yield
            write_whole(self._file, {name: getattr(self, name) for name in self._tables()})

    def copy_of(self, item: Item) -> Item:
        """Return a copy that no later change touches."""
        with self._lock:
            return copy.deepcopy(item)

    def active_deployment(self, application: str, group: str) -> Item | None:
        """Return the deployment of the group that has not ended."""
        of_group = self.deployments_of(application, group)
        return next((it for it in of_group if it["status"] not in FINAL_STATES), None)

    def last_success(self, application: str, group: str) -> Item | None:
        """Return the group's newest deployment that succeeded."""
        of_group = self.deployments_of(application, group)
        return next((it for it in reversed(of_group) if it["status"] == "Succeeded"), None)

    def deployments_of(self, application: str, group: str) -> list[Item]:
        """Return the group's deployments, oldest first."""
        with self._lock:
            return [
                it
                for it in self.deployments.values()
                if (it["applicationName"], it["deploymentGroupName"]) == (application, group)
            ]

    def _tables(self) -> tuple[str, ...]:
        return ("applications", "groups", "deployments", "targets", "revisions")


def new_deployment_id() -> str:
    """Return an id of the form `d-ABCDEFGH1`."""
    alphabet = string.ascii_uppercase + string.digits
    return "d-" + "".join(secrets.choice(alphabet) for _ in range(9))


def now() -> float:
    """Return the time as the API gives it, in Unix seconds with milliseconds."""
    return round(time.time(), 3)
