"""Whether this machine's Docker can build the images of a cloud assembly: told before the CDK CLI starts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ops.console import OperatorError

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# What Docker calls an architecture, what the kernel calls it, and the kernel's emulator for it.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "amd64": "amd64", "arm64": "arm64"}
EMULATORS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}
COMMAND_SECONDS = 30


def require_buildable(assembly: Path, environment: str) -> None:
    """Raise OperatorError naming the images that can't be built here, and what to do.

    Says nothing where Docker doesn't answer: what is published already needs none.
    """
    platforms = supported()
    if not platforms:
        return
    wanted = wanted_platforms(assembly)
    foreign = {name: platform for name, platform in wanted.items() if platform not in platforms}
    if foreign:
        raise OperatorError(explain(foreign, platforms, environment))


def wanted_platforms(assembly: Path) -> dict[str, str]:
    """Name and platform (`linux/arm64`) of every image of a cloud assembly that names one."""
    return {
        asset["displayName"]: asset["source"]["platform"]
        for manifest in sorted(assembly.glob("*.assets.json"))
        for asset in json.loads(manifest.read_text()).get("dockerImages", {}).values()
        if "platform" in asset["source"]
    }


def supported(binfmt: Path = BINFMT) -> set[str]:
    """The platforms that this machine's Docker builds; none when it doesn't answer."""
    docker = os.environ.get("CDK_DOCKER", "docker")
    builder = _output([docker, "buildx", "inspect", "--bootstrap"])
    if builder and (listed := parse_buildx(builder)):
        return listed
    machine = _output([docker, "info", "--format", "{{.Architecture}}"]).strip()
    if machine not in MACHINES:
        return set()
    return {f"linux/{MACHINES[machine]}", *emulated(binfmt)}


def parse_buildx(text: str) -> set[str]:
    """The platforms that `docker buildx inspect` lists; a star marks those that somebody chose."""
    lines = (line.partition(":") for line in text.splitlines())
    return {
        platform.strip().rstrip("*")
        for name, _, platforms in lines
        if name.strip() == "Platforms"
        for platform in platforms.split(",")
        if platform.strip()
    }


def emulated(binfmt: Path) -> set[str]:
    """The platforms whose programs the kernel hands to an emulator."""
    return {
        f"linux/{architecture}"
        for architecture, emulator in EMULATORS.items()
        if (binfmt / emulator).is_file() and (binfmt / emulator).read_text().startswith("enabled")
    }


def explain(foreign: Mapping[str, str], platforms: set[str], environment: str) -> str:
    """What can't be built, what can, and the ways out."""
    images = ", ".join(f"{name} ({platform})" for name, platform in sorted(foreign.items()))
    able = ", ".join(sorted(platforms))
    architecture = {"linux/amd64": "x86_64", "linux/arm64": "arm64"}
    native = next((architecture[platform] for platform in sorted(platforms) if platform in architecture), "")
    ways = []
    if native and any(name != "training" for name in foreign):
        ways.append(f'set architecture = "{native}" in environments/{environment}.toml')
    emulators = ",".join(sorted({platform.partition("/")[2] for platform in foreign.values()}))
    ways.append(
        f"give this machine an emulator: docker run --privileged --rm tonistiigi/binfmt --install {emulators}"
    )
    ways.append("deploy from a machine that builds them")
    return f"images that Docker can't build here: {images}; it builds {able}. Either " + ", or ".join(ways)


def _output(command: list[str]) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout if ran.returncode == 0 else ""
