"""Tasks as containers of a real engine: the image, user, limits and read-only root of their task definitions.

A container shares this machine's network, where the account, its database and its broker listen on the loopback. The
shim of the process engine is mounted into it and gives its Python the task's own address and Cloud Map's names.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from local import processes
from local.docker import TASK, Docker, reference, variables
from local.ecs.containers import (
    DEFAULT_STOP_SECONDS,
    LONGEST_STOP_SECONDS,
    SHIM,
    Container,
    Record,
    account_environment,
    command_of,
    container_override,
    declared_environment,
    log_file_of,
)
from local.efs import efs_root
from local.images import PathMap
from local.paths import LocalPaths

SHIM_PLACE = "/run/updraft/shim"
NAMES_PLACE = "/run/updraft/names"
CPU_UNITS = 1024


class DockerContainer(Container):
    """One container of the engine; `process` is the client that is attached to it."""

    def __init__(self, docker: Docker, docker_name: str, **known: Any) -> None:
        super().__init__(**known)
        self._docker = docker
        self._docker_name = docker_name
        self._stopper: subprocess.Popen[bytes] | None = None
        self._reason: str | None = None

    def inside(self, command: list[str], *, terminal: bool = False) -> list[str]:
        """What runs a command in the container, with its user and environment."""
        options = ["--interactive", "--tty"] if terminal else []
        return [*self._docker.command, "exec", *options, self._docker_name, *command]

    def ask_to_stop(self) -> None:
        """Have the engine stop it: SIGTERM to its first process, SIGKILL after the stop time-out."""
        if self._stopper is None:
            seconds = min(self.definition.get("stopTimeout", DEFAULT_STOP_SECONDS), LONGEST_STOP_SECONDS)
            self._stopper = subprocess.Popen(
                [*self._docker.command, "stop", "--time", str(seconds), self._docker_name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def reason(self) -> str | None:
        """Why it ended, where its exit code alone doesn't tell."""
        if self._reason is None and self.exit_code() is not None:
            killed = self._docker.run("inspect", "--format", "{{.State.OOMKilled}}", self._docker_name)
            if killed == "true":
                self._reason = "OutOfMemoryError: Container killed due to memory usage"
        return self._reason

    def clean_up(self, paths: LocalPaths) -> None:
        """Remove the container, and end what was attached to it."""
        self._docker.remove_container(self._docker_name)
        for client in (self._stopper, self.check, self.process):
            if client is not None:
                client.kill()
                client.wait()
        processes.forget(paths, self.name)


class DockerEngine:
    """Starts containers, and removes what is left of a task."""

    def __init__(self, paths: LocalPaths, docker: Docker) -> None:
        self._paths = paths
        self._docker = docker

    def open(self) -> None:
        """Remove the containers of an account that was killed."""
        (self._paths.ecs / "names").mkdir(parents=True, exist_ok=True)
        self._docker.remove_all(TASK)

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
        """Create and start one container; raises ImageError, or DockerError with the engine's words."""
        task_id = task["taskArn"].rpartition("/")[2]
        name = f"ecs-{task_id}-{definition['name']}"
        docker_name = self._docker.name(name)
        image_environment = self._docker.image_environment(definition["image"])
        override = container_override(task, definition)
        environment = declared_environment(definition, override) | self._network_environment(
            image_environment, address
        )
        environment |= account_environment(self._paths) | credentials
        entrypoint, arguments = _entrypoint(definition, command_of(definition, override))
        options = [
            *("--name", docker_name, "--network", "host", "--log-driver", "none"),
            *self._docker.labels(TASK),
            *_limits(task_definition, definition),
            *_settings(definition),
            *self._mounts(task_definition, definition, task_id),
            *entrypoint,
            *variables(environment | secrets, list(secrets)),
        ]
        self._docker.run(
            "create",
            *options,
            reference(definition["image"]),
            *arguments,
            environment={**os.environ, **secrets},
        )
        log_file = log_file_of(self._paths, task, definition)
        process = processes.start(
            self._paths,
            name,
            [*self._docker.command, "start", "--attach", docker_name],
            log_file=log_file,
            working_directory=self._paths.root,
        )
        return DockerContainer(
            self._docker,
            docker_name,
            definition=definition,
            process=process,
            name=name,
            log_file=log_file,
            directory=self._paths.root,
            working_directory=self._paths.root,
            environment=dict(os.environ),
            path_map=PathMap({}),
        )

    def remove(self, task_id: str) -> None:
        """Remove a task's volumes."""
        prefix = self._docker.name(f"ecs-{task_id}")
        volumes = self._docker.run("volume", "ls", "--quiet", "--filter", f"name={prefix}").split()
        if volumes:
            self._docker.run("volume", "rm", *volumes)

    def _network_environment(self, image_environment: dict[str, str], address: str) -> dict[str, str]:
        python_path = [SHIM_PLACE, *filter(None, [image_environment.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": ":".join(python_path),
            "UPDRAFT_TASK_ADDRESS": address,
            "UPDRAFT_TASK_NAMES": f"{NAMES_PLACE}/names.json",
        }

    def _mounts(self, task_definition: Record, definition: Record, task_id: str) -> list[str]:
        by_name = {volume["name"]: volume for volume in task_definition.get("volumes", [])}
        binds = {SHIM_PLACE: (SHIM, True), NAMES_PLACE: (self._paths.ecs / "names", True)}
        options: list[str] = []
        for mount in definition.get("mountPoints", []):
            volume = by_name[mount["sourceVolume"]]
            read_only = mount.get("readOnly", False)
            if efs := volume.get("efsVolumeConfiguration"):
                binds[mount["containerPath"]] = (efs_root(self._paths, efs["fileSystemId"]), read_only)
            elif source := volume.get("host", {}).get("sourcePath"):
                binds[mount["containerPath"]] = (Path(source), read_only)
            else:
                name = self._volume(f"ecs-{task_id}-{volume['name']}")
                suffix = ",readonly" if read_only else ""
                options += ["--mount", f"type=volume,source={name},target={mount['containerPath']}{suffix}"]
        for place, (source_path, read_only) in binds.items():
            suffix = ",readonly" if read_only else ""
            options += ["--mount", f"type=bind,source={source_path},target={place}{suffix}"]
        return options

    def _volume(self, what: str) -> str:
        """A volume of the task; its first mount gives it what the image has at that place."""
        name = self._docker.name(what)
        self._docker.run("volume", "create", *self._docker.labels(TASK), name)
        return name


def _limits(task_definition: Record, definition: Record) -> list[str]:
    """A container's own limits, and the task's where it has none; they hold for each container, not for their sum."""
    cpu = definition.get("cpu") or int(task_definition.get("cpu") or 0)
    memory = definition.get("memory") or int(task_definition.get("memory") or 0)
    options = ["--cpus", str(cpu / CPU_UNITS)] if cpu else []
    # Fargate has no swap.
    return options + (["--memory", f"{memory}m", "--memory-swap", f"{memory}m"] if memory else [])


def _settings(definition: Record) -> list[str]:
    linux = definition.get("linuxParameters", {})
    capabilities = linux.get("capabilities", {})
    options = [
        *(["--user", definition["user"]] if definition.get("user") else []),
        *(["--workdir", definition["workingDirectory"]] if definition.get("workingDirectory") else []),
        *(["--read-only"] if definition.get("readonlyRootFilesystem") else []),
        *(["--init"] if linux.get("initProcessEnabled") else []),
    ]
    for option, names in (("--cap-add", "add"), ("--cap-drop", "drop")):
        options += [part for name in capabilities.get(names, []) for part in (option, name)]
    for limit in definition.get("ulimits", []):
        options += ["--ulimit", f"{limit['name']}={limit['softLimit']}:{limit['hardLimit']}"]
    return options


def _entrypoint(definition: Record, command: list[str]) -> tuple[list[str], list[str]]:
    """The option takes one word; the others go before the command."""
    entrypoint = definition.get("entryPoint")
    if not entrypoint:
        return [], command
    return ["--entrypoint", entrypoint[0]], [*entrypoint[1:], *command]
