"""A container is a process: its environment, its paths, its start, its health, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import processes
from local.efs import efs_mount
from local.images import Image, PathMap, load
from local.paths import LocalPaths

Record = dict[str, Any]
SHIM = Path(__file__).with_name("shim")
# Fargate caps the stop time-out at two minutes; thirty seconds is the default.
LONGEST_STOP_SECONDS = 120
DEFAULT_STOP_SECONDS = 30
UNSET = -1


@dataclass
class Container:
    """One running process; `health` follows the task definition's health check."""

    definition: Record
    process: subprocess.Popen[bytes]
    name: str
    log_file: Path
    directory: Path
    working_directory: Path
    environment: dict[str, str]
    path_map: PathMap
    started_at: float = field(default_factory=time.time)
    health: str = "UNKNOWN"
    failed_checks: int = 0
    next_check_at: float = 0.0
    check: subprocess.Popen[bytes] | None = None
    check_deadline: float = 0.0
    stop_deadline: float | None = None

    def inside(self, command: list[str], *, terminal: bool = False) -> list[str]:
        """What runs a command in the container, as a process with its `environment`; on this `terminal` if asked."""
        del terminal
        return [self.path_map.rewrite(part) for part in command]

    def reason(self) -> str | None:
        """Why it ended, where its exit code alone doesn't tell; a process has nothing to add."""
        return None

    def exit_code(self) -> int | None:
        """The exit code as a container has it: 128 + the signal's number when one ended it."""
        code = self.process.poll()
        return None if code is None else (128 - code if code < 0 else code)

    def ask_to_stop(self) -> None:
        """SIGTERM to the main process alone; SIGKILL follows after the stop time-out."""
        if self.stop_deadline is None:
            asked = self.definition.get("stopTimeout", DEFAULT_STOP_SECONDS)
            self.stop_deadline = time.monotonic() + min(asked, LONGEST_STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        elif time.monotonic() > self.stop_deadline:
            processes.kill_session(self.process.pid)

    def clean_up(self, paths: LocalPaths) -> None:
        """Kill what the main process left behind, and remove the container's own files."""
        processes.kill_session(self.process.pid)
        if self.check is not None:
            processes.kill_session(self.check.pid)
            self.check.wait()
        processes.forget(paths, self.name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def probe(self) -> None:
        """Start the health check when it is due, and take its answer when it has one."""
        settings = self.definition.get("healthCheck")
        if settings is None:
            return
        now = time.monotonic()
        if self.check is None:
            if self.next_check_at == 0.0:
                self.next_check_at = now + min(2.0, settings.get("interval", 30))
            if now >= self.next_check_at:
                self._start_check(settings, now)
            return
        code = self.check.poll()
        if code is None and now < self.check_deadline:
            return
        if code is None:
            processes.kill_session(self.check.pid)
            self.check.wait()
        self.check = None
        self._judge(settings, succeeded=code == 0)
        # A container that is still starting is asked again soon: the first success makes it healthy.
        interval = settings.get("interval", 30)
        self.next_check_at = now + (interval if self.health == "HEALTHY" else min(2.0, interval))

    def _start_check(self, settings: Record, now: float) -> None:
        kind, *command = settings["command"]
        argv = self.inside(["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command)
        self.check_deadline = now + settings.get("timeout", 5)
        with self.log_file.with_suffix(".health").open("wb") as output:
            self.check = subprocess.Popen(
                argv,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _judge(self, settings: Record, *, succeeded: bool) -> None:
        if succeeded:
            self.health, self.failed_checks = "HEALTHY", 0
            return
        if time.time() - self.started_at < settings.get("startPeriod", 0) and self.health == "UNKNOWN":
            return
        self.failed_checks += 1
        if self.failed_checks >= settings.get("retries", 3):
            self.health = "UNHEALTHY"


class ProcessEngine:
    """Containers as processes, in the Python environment of their image's lock."""

    def __init__(self, paths: LocalPaths) -> None:
        self._paths = paths

    def open(self) -> None:
        """Nothing to do: processes that an account left behind were reaped by their records."""

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
        """Start one container of a task; raises ImageError or OSError with what is wrong."""
        paths = self._paths
        image = load(paths, definition["image"])
        task_id = task["taskArn"].rpartition("/")[2]
        name = f"ecs-{task_id}-{definition['name']}"
        directory = paths.ecs / "containers" / task_id / definition["name"]
        volumes = task_definition.get("volumes", [])
        path_map = _path_map(paths, image, directory, definition, volumes, address)
        override = container_override(task, definition)
        environment = _environment(paths, image, definition, override, secrets, directory, path_map)
        environment |= credentials
        environment |= {"UPDRAFT_TASK_ADDRESS": address, "UPDRAFT_TASK_NAMES": str(names_file(paths))}
        words = [*definition.get("entryPoint", image.entrypoint), *command_of(definition, override)]
        argv = [path_map.rewrite(part) for part in words]
        working_directory = _workdir(image, directory, path_map)
        log_file = log_file_of(paths, task, definition)
        process = processes.start(
            paths,
            name,
            [_resolve(argv[0], environment["PATH"]), *argv[1:]],
            log_file=log_file,
            working_directory=working_directory,
            environment=environment,
        )
        return Container(
            definition, process, name, log_file, directory, working_directory, environment, path_map
        )

    def remove(self, task_id: str) -> None:
        """Remove a task's volumes."""
        shutil.rmtree(self._paths.ecs / "containers" / task_id, ignore_errors=True)


def names_file(paths: LocalPaths) -> Path:
    """The addresses of steady tasks under their Cloud Map names, for the shim; alone in its folder, to be mounted."""
    return paths.ecs / "names" / "names.json"


def container_override(task: Record, definition: Record) -> Record:
    """What RunTask changed for this container."""
    overrides: list[Record] = task["overrides"].get("containerOverrides", [])
    return next((item for item in overrides if item["name"] == definition["name"]), {})


def command_of(definition: Record, override: Record) -> list[str]:
    """The command that follows the entry point."""
    return list(override.get("command") or definition.get("command", []))


def declared_environment(definition: Record, override: Record) -> dict[str, str]:
    """The variables of a task definition and of RunTask."""
    pairs = [*definition.get("environment", []), *override.get("environment", [])]
    return {pair["name"]: pair["value"] for pair in pairs}


def account_environment(paths: LocalPaths) -> dict[str, str]:
    """Where the account is; who a container is there, its task role tells."""
    return {
        "AWS_ENDPOINT_URL": paths.endpoint_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
    }


def log_file_of(paths: LocalPaths, task: Record, definition: Record) -> Path:
    """Where a container's output goes."""
    task_id = task["taskArn"].rpartition("/")[2]
    return paths.log / "ecs" / definition_family(task) / f"{task_id}-{definition['name']}.log"


def definition_family(task: Record) -> str:
    """The family of a task's definition."""
    return str(task["taskDefinitionArn"].rpartition("/")[2].partition(":")[0])


def _path_map(
    paths: LocalPaths, image: Image, directory: Path, definition: Record, volumes: list[Record], address: str
) -> PathMap:
    places = {folder: image.root / folder.lstrip("/") for folder in image.copied}
    if image.workdir not in places and image.workdir != "/":
        places[image.workdir] = directory / image.workdir.lstrip("/")
        places[image.workdir].mkdir(parents=True, exist_ok=True)
    places["/tmp"] = directory / "tmp"
    places["/tmp"].mkdir(parents=True, exist_ok=True)
    by_name = {volume["name"]: volume for volume in volumes}
    for mount in definition.get("mountPoints", []):
        places[mount["containerPath"]] = _volume(paths, by_name[mount["sourceVolume"]], directory)
    return PathMap(places, address=address)


def _volume(paths: LocalPaths, volume: Record, directory: Path) -> Path:
    efs = volume.get("efsVolumeConfiguration")
    if efs:
        return efs_mount(paths, efs["fileSystemId"])
    shared = directory.parent / "volumes" / str(volume["name"])
    shared.mkdir(parents=True, exist_ok=True)
    return shared


def _environment(
    paths: LocalPaths,
    image: Image,
    definition: Record,
    override: Record,
    secrets: dict[str, str],
    directory: Path,
    path_map: PathMap,
) -> dict[str, str]:
    declared = dict(image.environment) | declared_environment(definition, override)
    environment = {name: path_map.rewrite(value) for name, value in declared.items()} | secrets
    python_path = [str(SHIM), *filter(None, [environment.get("PYTHONPATH")])]
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    own = {
        "PYTHONPATH": os.pathsep.join(python_path),
        "PATH": os.pathsep.join([str(image.python_bin(paths)), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(directory / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    return environment | own | account_environment(paths)


def _workdir(image: Image, directory: Path, path_map: PathMap) -> Path:
    workdir = Path(path_map.rewrite(image.workdir))
    return workdir if workdir.is_dir() and image.workdir != "/" else directory


def _resolve(program: str, search_path: str) -> str:
    found = shutil.which(program, path=search_path)
    if found is None:
        raise OSError(f"exec: {program}: not found in the image's environment")
    return found
