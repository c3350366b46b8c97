"""ECS Exec: the API's half of running a command inside a container."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from local.ecs.containers import Container
from local.ecs.service import EcsError, EcsService
from local.ecs.store import Record

NOT_ENABLED = (
    "The execute command failed because execute command was not enabled when the task was run or the execute command "
    "agent isn\u2019t running. Wait and try again or run a new task with execute command enabled and try again."
)
# As long as a session's token is good for; what nobody has taken up by then is removed.
TOKEN_SECONDS = 60


class Sessions:
    """Answers ExecuteCommand with a session that `local.ecs.session` takes up, as the plugin does with AWS's.

    On AWS the stream's URL leads to the agent inside the container. Here it leads to a file, for its owner's eyes only,
    with what a process of the container is made of: `argv`, `directory`, `environment`, and the session's `token`.
    """

    def __init__(
        self, ecs: EcsService, containers_of: Callable[[str], list[Container]], *, directory: Path
    ) -> None:
        self._ecs = ecs
        self._containers_of = containers_of
        self._directory = directory

    def execute_command(self, request: Record) -> Record:
        """Start a session; raises EcsError as AWS answers for a task that can't take one."""
        if not request["interactive"]:
            raise EcsError("InvalidParameterException", "Interactive must be true: it is the only mode.")
        task = self._ecs.find_task(request.get("cluster"), request["task"])
        if not task.get("enableExecuteCommand") or task["lastStatus"] != "RUNNING":
            raise EcsError("InvalidParameterException", NOT_ENABLED)
        container = self._container(task, request.get("container"))
        try:
            argv = shlex.split(request["command"])
        except ValueError as error:
            raise EcsError("InvalidParameterException", f"command: {error}") from error
        if not argv:
            raise EcsError("InvalidParameterException", "command: it is empty")
        session_id = f"ecs-execute-command-{uuid.uuid4().hex[:17]}"
        token = secrets.token_urlsafe(48)
        file = self._write(session_id, token, container, argv)
        described = next(item for item in task["containers"] if item["name"] == container.definition["name"])
        return {
            "clusterArn": task["clusterArn"],
            "containerArn": described["containerArn"],
            "containerName": described["name"],
            "interactive": True,
            "session": {"sessionId": session_id, "streamUrl": file.as_uri(), "tokenValue": token},
            "taskArn": task["taskArn"],
        }

    def _container(self, task: Record, name: str | None) -> Container:
        running = {
            container.definition["name"]: container for container in self._containers_of(task["taskArn"])
        }
        if name is None and len(running) > 1:
            raise EcsError("InvalidParameterException", f"container: choose one of {', '.join(running)}")
        found = next(iter(running.values()), None) if name is None else running.get(name)
        if found is None or found.exit_code() is not None:
            raise EcsError(
                "InvalidParameterException", f"The container {name} is not one that runs in the task."
            )
        return found

    def _write(self, session_id: str, token: str, container: Container, argv: list[str]) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._directory.iterdir():
            if time.time() - old.stat().st_mtime > TOKEN_SECONDS:
                old.unlink(missing_ok=True)
        rewritten = container.inside(argv, terminal=True)
        found = shutil.which(rewritten[0], path=container.environment["PATH"])
        document = {
            "token": token,
            # A program that isn't there fails in the session, as on AWS, not here.
            "argv": [found or rewritten[0], *rewritten[1:]],
            "directory": str(container.working_directory),
            "environment": container.environment,
        }
        file = self._directory / f"{session_id}.json"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            json.dump(document, handle)
        return file
