"""Stand-in for Docker: `login`, `build`, `tag` and `push`, with images as this platform has them.

Where the platform runs on a real engine, the image is built there. Otherwise an image is a folder with what its
Dockerfile copies and sets, and the Python environment of its lock: `build` asks that one of `docker/*/` has the same
lock, so that what would be installed in the image is what the process will import.

Called as `python -m local.codebuild.tools.docker BUILD_DIRECTORY ARGUMENT …`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from local import docker, images
from local.codebuild.tools.aws import login_password
from local.codebuild.tools.host import Host, RefusedError, call, options
from local.paths import ROOT

COMMANDS = ("login", "build", "tag", "push")
LOCK = "requirements.txt"


def run(host: Host, arguments: list[str]) -> None:
    """Run one command; raises RefusedError for one that this stand-in hasn't."""
    command, rest = (arguments or [""])[0], arguments[1:]
    if command == "login":
        _, [registry] = options(rest, {"--username", "-u"}, operands=1, flags=frozenset({"--password-stdin"}))
        login(host, registry, sys.stdin.read().strip())
    elif command == "build":
        found, [context] = options(rest, {"--tag", "-t", "--platform"}, operands=1)
        build(host, found.get("--tag") or found.get("-t") or "", Path(context))
    elif command == "tag":
        _, [source, target] = options(rest, set(), operands=2)
        shutil.copytree(_existing(host, source), _built(host, target), dirs_exist_ok=True, symlinks=True)
    elif command == "push":
        _, [uri] = options(rest, set(), operands=1)
        push(host, uri)
    else:
        raise RefusedError(f"'{command}' is not available in a local build; {', '.join(COMMANDS)} are")


def login(host: Host, registry: str, password: str) -> None:
    """Remember that the registry's password was given; raises PermissionError for another one."""
    if password != login_password(host):
        raise PermissionError(f"Error response from {registry}: 400 Bad Request: wrong password")
    with (host.directory / "logins").open("a") as file:
        file.write(f"{registry}\n")
    print("Login Succeeded")


def build(host: Host, uri: str, context: Path) -> None:
    """Build the image of a context; raises ImageError with what is wrong."""
    if not uri:
        raise RefusedError("build: --tag is missing")
    engine = docker.chosen(host.paths)
    target = _built(host, uri)
    if engine is not None:
        print(
            engine.run(
                "build", "--tag", docker.reference(uri), str(context), timeout_seconds=docker.BUILD_SECONDS
            )
        )
        target.mkdir(parents=True, exist_ok=True)
        return
    name = image_of_lock((context / LOCK).read_bytes())
    images.lay_out(name, context, target)
    image = json.loads((target / "image.json").read_text())
    # Without its environment the image could not run: an installation that fails, fails the build.
    images.Image(root=target / "root", **image).python_bin(host.paths)
    print(f"Successfully built {uri} with the Python environment '{name}'")


def push(host: Host, uri: str) -> None:
    """Put a built image into its repository; raises PermissionError without a log-in."""
    built, (repository, _, tag) = _existing(host, uri), uri.rpartition(":")
    registry, _, name = repository.partition("/")
    logins = host.directory / "logins"
    if not logins.is_file() or registry not in logins.read_text().split():
        raise PermissionError(f"no basic auth credentials for {registry}")
    manifest = json.dumps({"schemaVersion": 2, "built": _digest(built)})
    host.client("ecr").put_image(repositoryName=name, imageTag=tag, imageManifest=manifest)
    pushed = images.pushed_image(host.paths, uri)
    if (built / "image.json").is_file():
        pushed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(built, pushed, dirs_exist_ok=True)
    print(f"{tag}: pushed to {repository}")


def image_of_lock(lock: bytes) -> str:
    """The folder of `docker/` that has this very lock; raises ImageError when none has."""
    for file in sorted((ROOT / "docker").glob(f"*/{LOCK}")):
        if file.read_bytes() == lock:
            return file.parent.name
    raise images.ImageError(
        f"no image of docker/ has this {LOCK}; without an engine a local build takes the environment of one of them"
    )


def _built(host: Host, uri: str) -> Path:
    """Where an image lies on the build's host."""
    return host.directory / "images" / hashlib.sha256(uri.encode()).hexdigest()


def _existing(host: Host, uri: str) -> Path:
    found = _built(host, uri)
    if not found.is_dir():
        raise images.ImageError(f"An image does not exist locally with the tag: {uri}")
    return found


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(call("docker", run, refused_status=125, failed_status=1))
