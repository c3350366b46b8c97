"""What runs containers: processes of this machine, or a real engine where one was chosen."""

from __future__ import annotations

from typing import Protocol

from local import docker
from local.ecs.containers import Container, ProcessEngine
from local.ecs.docker_engine import DockerEngine
from local.ecs.store import Record
from local.paths import LocalPaths


class Engine(Protocol):
    """Starts the containers of tasks; the plane decides which, and watches them."""

    def open(self) -> None:
        """Get ready, and remove what an account that was killed left behind."""

    def start(
        self,
        task: Record,
        task_definition: Record,
        definition: Record,
        *,
        address: str,
        secrets: dict[str, str],
        credentials: dict[str, str],
    ) -> Container:
        """Start one container of a task, with its task role's credentials as variables.

        Raises ImageError or OSError with what is wrong.
        """

    def remove(self, task_id: str) -> None:
        """Remove what a task had beside its containers, once they have ended."""


def engine_of(paths: LocalPaths) -> Engine:
    """The engine that this platform was started with."""
    chosen = docker.chosen(paths)
    return DockerEngine(paths, chosen) if chosen else ProcessEngine(paths)
