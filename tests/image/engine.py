"""Ways into a container engine and its images."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

RUN_SECONDS = 180


@dataclass(frozen=True)
class Image:
    """A built image, and ways to look into it."""

    tag: str

    def run(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run it as its task definition does: read-only root, an init process; removed at its end."""
        return docker("run", "--rm", "--read-only", "--init", *options, self.tag, *command)

    def python(self, program: str) -> str:
        """What a Python program prints in it; an assertion fails when the program does."""
        ran = self.run("-c", program, options=("--entrypoint", "python"))
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def inspect(self, field: str) -> str:
        return docker("image", "inspect", "--format", field, self.tag).stdout.strip()


def docker(*arguments: str, timeout_seconds: int = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
