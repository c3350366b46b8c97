"""A job's container: a process of this machine, or the real image in a container engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local import docker, images
from local.account.principals import RoleCredentials
from local.paths import LocalPaths


@dataclass(frozen=True)
class JobContainer:
    """`name` is this job's alone, `directory` its own folder, `ml` what is `/opt/ml` inside, `role` the job's."""

    paths: LocalPaths
    role: RoleCredentials
    name: str
    directory: Path
    ml: Path

    def start(
        self,
        uri: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        entrypoint: Sequence[str] | None,
        output: Any,
    ) -> subprocess.Popen[bytes]:
        """Start it, its output written to `output`; raises ImageError or OSError with what is wrong."""
        account = {
            "AWS_REGION": self.paths.region,
            "AWS_ENDPOINT_URL": self.paths.endpoint_url,
            **self.role.environment(),
        }
        engine = docker.chosen(self.paths)
        if engine is None:
            return self._start_process(uri, arguments, environment, account, entrypoint, output)
        return self._start_container(engine, uri, arguments, {**environment, **account}, entrypoint, output)

    def _start_process(
        self,
        uri: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        account: Mapping[str, str],
        entrypoint: Sequence[str] | None,
        output: Any,
    ) -> subprocess.Popen[bytes]:
        image = images.load(self.paths, uri)
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        places = {folder: image.root / folder.lstrip("/") for folder in image.copied}
        path_map = images.PathMap(places | {"/opt/ml": self.ml, "/tmp": temporary}, address="127.0.0.1")
        declared = {**image.environment, **environment}
        merged = {name: path_map.rewrite(value) for name, value in declared.items()}
        search_path = [str(image.python_bin(self.paths)), "/usr/local/bin", "/usr/bin", "/bin"]
        merged |= {
            **account,
            "PATH": os.pathsep.join(search_path),
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
        }
        command = [path_map.rewrite(part) for part in [*(entrypoint or image.entrypoint), *arguments]]
        program = shutil.which(command[0], path=merged["PATH"]) or command[0]
        workdir = Path(path_map.rewrite(image.workdir))
        return subprocess.Popen(
            [program, *command[1:]],
            cwd=workdir if workdir.is_dir() else self.directory,
            env=merged,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def _start_container(
        self,
        engine: docker.Docker,
        uri: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        entrypoint: Sequence[str] | None,
        output: Any,
    ) -> subprocess.Popen[bytes]:
        """The image with its own user, as on SageMaker, and this machine's network."""
        engine.image_environment(uri)
        name = engine.name(self.name)
        options = [
            *("--name", name, "--network", "host", "--log-driver", "none"),
            *engine.labels(docker.JOB),
            *("--mount", f"type=bind,source={self.ml},target=/opt/ml"),
            *(["--entrypoint", entrypoint[0]] if entrypoint else []),
            # What it writes has to go when the job goes, whoever runs this platform.
            *(["--user", f"{os.getuid()}:{os.getgid()}"] if os.getuid() else []),
            # What listens does so for this machine alone.
            *docker.variables({**environment, "ML_HOST": "127.0.0.1"}, []),
        ]
        engine.remove_container(name)
        engine.run("create", *options, docker.reference(uri), *(entrypoint or [])[1:], *arguments)
        return docker.ContainerProcess(engine, name, output)
