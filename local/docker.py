"""The container engine of the laptop, where one was chosen: its images, and what this platform runs on it.

It is called through its own command line, which every machine with an engine has. All that a platform makes carries
its label, so that nothing else on the engine is ever touched.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.images import ImageError, find_context
from local.paths import LocalPaths
from local.state_file import write_whole

LABEL = "updraft.platform"
KIND = "updraft.kind"
JOB = "job"
TASK = "task"
COMMAND_SECONDS = 60
BUILD_SECONDS = 1800


class DockerError(OSError):
    """What the engine answered, in its own words."""


@dataclass(frozen=True)
class Docker:
    """The engine at a Unix socket (`host`), and the platform (`state_directory`) that uses it."""

    host: str
    state_directory: Path

    @property
    def command(self) -> list[str]:
        """How each of its commands begins."""
        return ["docker", "--host", self.host]

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = COMMAND_SECONDS,
    ) -> str:
        """What a command printed; raises DockerError when it fails, takes too long, or there is no `docker`."""
        try:
            ran = subprocess.run(
                [*self.command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DockerError(f"docker {arguments[0]}: {error}") from error
        if ran.returncode != 0:
            raise DockerError(f"docker {arguments[0]}: {ran.stderr.strip()[-500:]}")
        return ran.stdout.strip()

    def name(self, what: str) -> str:
        """A container's or volume's name that no other platform of this machine has."""
        digest = hashlib.sha256(str(self.state_directory).encode()).hexdigest()[:8]
        return f"updraft-{digest}-{re.sub(r'[^a-zA-Z0-9_.-]', '-', what)}"

    def labels(self, kind: str) -> list[str]:
        """Options that mark something as this platform's."""
        return ["--label", f"{LABEL}={self.state_directory}", "--label", f"{KIND}={kind}"]

    def remove_all(self, kind: str | None = None) -> None:
        """Remove this platform's containers and volumes, or those of one kind."""
        chosen = ["--filter", f"label={LABEL}={self.state_directory}"]
        chosen += ["--filter", f"label={KIND}={kind}"] if kind else []
        containers = self.run("ps", "--all", "--quiet", *chosen).split()
        if containers:
            self.run("rm", "--force", "--volumes", *containers)
        volumes = self.run("volume", "ls", "--quiet", *chosen).split()
        if volumes:
            self.run("volume", "rm", *volumes)

    def remove_container(self, name: str) -> None:
        """Remove a container, running or not; one that is gone already is fine."""
        try:
            self.run("rm", "--force", "--volumes", name)
        except DockerError as error:
            if "No such container" not in str(error):
                raise

    def image_environment(self, uri: str) -> dict[str, str]:
        """The variables of an image; raises ImageError when it has not been built."""
        try:
            settings = json.loads(
                self.run("image", "inspect", "--format", "{{json .Config}}", reference(uri))
            )
        except DockerError as error:
            raise ImageError(f"image {uri} is not built; build it with: ./updraft up") from error
        pairs = (pair.partition("=") for pair in settings.get("Env") or [])
        return {name: value for name, _, value in pairs}

    def missing_images(self, paths: LocalPaths) -> dict[str, str]:
        """Tag and name of each image of the cloud assembly that has not been built."""
        return {
            tag: name
            for tag, name in assembly_images(paths.cloud_assembly).items()
            if not self.run("images", "--quiet", f"updraft:{tag}")
        }

    def build(self, paths: LocalPaths, tag: str, log_file: Path) -> None:
        """Build an image from its staged context, the output in `log_file`; raises ImageError."""
        name, context = find_context(paths, tag)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        command = [*self.command, "build", "--tag", f"updraft:{tag}", str(context)]
        with log_file.open("w") as output:
            ended = subprocess.run(
                command, stdout=output, stderr=output, timeout=BUILD_SECONDS, check=False
            ).returncode
        if ended != 0:
            tail = "\n  ".join(log_file.read_text(errors="replace").strip().splitlines()[-10:])
            raise ImageError(f"image '{name}' can't be built:\n  {tail}\nThe whole output is in {log_file}")


class ContainerProcess(subprocess.Popen[bytes]):
    """A container that this process is attached to: signals reach it, its exit code is this one's."""

    def __init__(self, docker: Docker, name: str, output: Any) -> None:
        self._docker, self._name = docker, name
        super().__init__(
            [*docker.command, "start", "--attach", name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        """SIGKILL to the container, whose end ends this process."""
        self._docker.run("kill", self._name)


def job_container(kind: str, name: str) -> str:
    """The part of its container's name that tells a SageMaker job from all others."""
    return f"sagemaker-{kind}-{name}"


def reference(uri: str) -> str:
    """What an image of a task definition is called on this machine: by the hash of its build context alone."""
    return f"updraft:{uri.rpartition(':')[2]}"


def assembly_images(assembly: Path) -> dict[str, str]:
    """Tag and name of every image of a cloud assembly."""
    return {
        place["imageTag"]: asset["displayName"]
        for manifest in sorted(assembly.glob("*.assets.json"))
        for asset in json.loads(manifest.read_text()).get("dockerImages", {}).values()
        for place in asset["destinations"].values()
    }


def chosen(paths: LocalPaths) -> Docker | None:
    """The engine that this platform was started with; None when its containers are processes."""
    file = settings_file(paths)
    return Docker(json.loads(file.read_text())["host"], paths.root) if file.is_file() else None


def choose(paths: LocalPaths, host: str | None) -> None:
    """Keep the engine for the next starts of this platform; None stands for processes."""
    if host is None:
        settings_file(paths).unlink(missing_ok=True)
    else:
        write_whole(settings_file(paths), {"host": host})


def variables(environment: Mapping[str, str], secrets: Sequence[str]) -> list[str]:
    """Options that give a container its environment; a secret's value comes from the caller's own, never in words."""
    plain = [f"{name}={value}" for name, value in environment.items() if name not in secrets]
    return [part for pair in [*plain, *secrets] for part in ("--env", pair)]


def settings_file(paths: LocalPaths) -> Path:
    """Holds the chosen engine; it isn't there for processes."""
    return paths.root / "docker.json"
