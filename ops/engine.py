"""Which engine runs the laptop's containers, and the images that a real one needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from local import docker, processes
from local.docker import Docker, DockerError
from local.images import ImageError
from ops.console import OperatorError, say, step
from ops.target import local_paths

ACCOUNT = "account"


class Engine(StrEnum):
    """`process`: each container is a process of this machine; `docker`: the real images, in a container engine."""

    process = "process"
    docker = "docker"


Choice = Annotated[
    Engine | None,
    typer.Option(
        "--engine",
        envvar="UPDRAFT_ENGINE",
        help="What runs containers: processes (at first), or a Docker engine with the real images. Kept until changed.",
    ),
]


def choose(engine: Engine | None) -> None:
    """Keep the engine for this platform; raises OperatorError while it runs on the other one, or can't use it."""
    if engine is None:
        return
    paths = local_paths()
    now = docker.chosen(paths)
    wanted = _require_docker() if engine is Engine.docker else None
    if wanted == (now.host if now else None):
        return
    if processes.is_running(paths, ACCOUNT):
        raise OperatorError(
            f"the platform runs on engine {'docker' if now else 'process'}; stop it first with: ./updraft down"
        )
    docker.choose(paths, wanted)


def build_images(names: Sequence[str]) -> None:
    """Build those of the cloud assembly's images that the engine doesn't have; nothing to do with processes."""
    paths = local_paths()
    engine = docker.chosen(paths)
    if engine is None:
        return
    try:
        for tag, name in engine.missing_images(paths).items():
            if name not in names:
                continue
            with step(f"building the image '{name}'"):
                engine.build(paths, tag, paths.log / f"build-{name}.log")
    except (DockerError, ImageError) as error:
        raise OperatorError(str(error)) from error


def remove_containers() -> None:
    """Remove what an account that was killed left on the engine."""
    engine = docker.chosen(local_paths())
    if engine is None:
        return
    try:
        engine.remove_all()
    except DockerError as error:
        say(f"  containers may be left: {error}. Start the engine and run ./updraft down again")


def _require_docker() -> str:
    """The socket of an engine whose containers can share this machine's network and files."""
    if sys.platform != "linux":
        raise OperatorError(
            "--engine docker: containers share the machine's network, which only an engine on Linux itself can give; "
            "this is another system. Use --engine process"
        )
    host = os.environ.get("DOCKER_HOST") or _context_host()
    if not host.startswith("unix://"):
        raise OperatorError(
            f"--engine docker: the engine is at {host}; it has to be on this machine, at a Unix socket (unix://…)"
        )
    try:
        described = Docker(host, local_paths().root).run("info", "--format", "{{json .SecurityOptions}}")
    except DockerError as error:
        raise OperatorError(f"--engine docker: no engine answers at {host}: {error}") from error
    if "rootless" in described:
        raise OperatorError(
            f"--engine docker: the engine at {host} is rootless, and so has a network of its own; it has to run as root"
        )
    return host


def _context_host() -> str:
    try:
        command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise OperatorError(
            "--engine docker: there is no `docker` on the PATH; install Docker, or use --engine process"
        ) from error
