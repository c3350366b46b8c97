"""What the deployment hooks share: the release in the bundle, its staged copy, and the pointer.

Runs with the bastion's own Python and boto3; nothing else of the project is there.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import boto3

MANIFEST = ".release.json"
BUNDLE = Path(__file__).resolve().parents[1]
STAGING_PREFIX = ".staging-"
# A hook is killed long before; what is older belongs to nobody.
STALE_STAGING_SECONDS = 3600


class HookError(Exception):
    """The deployment fails with this text."""


@dataclass(frozen=True)
class Manifest:
    """`files` maps each path of the release to its SHA-256 in hex."""

    version: str
    files: dict[str, str]


def run(hook: Callable[[], str]) -> None:
    """Run the hook and print what it says; a failure is one line on standard error and exit status 1."""
    try:
        print(hook())
    except HookError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def environment(name: str) -> str:
    """Return a variable that the instance's user data gives to the CodeDeploy agent."""
    value = os.environ.get(name, "")
    if not value:
        raise HookError(f"{name} is not set; the instance's user data writes it for the CodeDeploy agent")
    return value


def releases_directory() -> Path:
    """Return the mounted folder of all releases."""
    folder = Path(environment("UPDRAFT_RELEASES_DIRECTORY"))
    if not folder.is_dir():
        raise HookError(f"{folder} is no folder; is the file system mounted?")
    return folder


def bundle_manifest() -> Manifest:
    """Return the manifest of the release in this bundle, checked against its own version."""
    return read_manifest(BUNDLE / "release")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the release in `folder`. Raises HookError for a wrong one."""
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        manifest = Manifest(version=content["version"], files=dict(content["files"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HookError(f"{file}: is no manifest of a release: {error!r}") from error
    for path in manifest.files:
        _check_path(path)
    lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(manifest.files.items()))
    version = hashlib.sha256(lines.encode()).hexdigest()[:16]
    if manifest.version != version or not manifest.files:
        raise HookError(f"{file}: says version {manifest.version!r}, its files make {version!r}")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Raise HookError unless `folder` holds exactly the manifest's files with their hashes."""
    found: set[str] = set()
    for directory, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            entry = Path(directory) / name
            if entry.is_symlink():
                raise HookError(f"{entry}: is a symbolic link; a release holds plain files")
        found.update((Path(directory) / name).relative_to(folder).as_posix() for name in names)
    found.discard(MANIFEST)
    if missing := sorted(manifest.files.keys() - found):
        raise HookError(f"{folder}: lacks {', '.join(missing[:5])}")
    if surplus := sorted(found - manifest.files.keys()):
        raise HookError(f"{folder}: holds files that its manifest lacks: {', '.join(surplus[:5])}")
    for path, digest in manifest.files.items():
        if hashlib.sha256((folder / path).read_bytes()).hexdigest() != digest:
            raise HookError(f"{folder / path}: differs from its hash in the manifest")


def stage() -> str:
    """Copy the bundle's release to `{releases}/{version}`, whole or not at all; a second call finds it."""
    manifest = bundle_manifest()
    source = BUNDLE / "release"
    verify(source, manifest)
    releases = releases_directory()
    target = releases / manifest.version
    if target.exists():
        verify(target, manifest)
        return f"release {manifest.version} is staged already"
    _remove_stale(releases)
    staging = releases / f"{STAGING_PREFIX}{manifest.version}-{secrets.token_hex(4)}"
    try:
        _copy(source, staging, manifest)
        verify(staging, manifest)
        staging.rename(target)
    except OSError as error:
        # A deployment at the same time may have put the same release there.
        if not target.exists():
            raise HookError(f"{target}: can't be written: {error}") from error
        verify(target, manifest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _sync(releases)
    return f"release {manifest.version} is staged with {len(manifest.files)} files"


def switch() -> str:
    """Point Airflow to the bundle's release, once that is staged as it should be."""
    manifest = bundle_manifest()
    verify(releases_directory() / manifest.version, manifest)
    name = pointer_name()
    ssm().put_parameter(Name=name, Value=manifest.version, Type="String", Overwrite=True)
    return f"{name} is {manifest.version}"


def validate() -> str:
    """Check that the pointer names the bundle's release and that this is whole."""
    manifest = bundle_manifest()
    pointer = ssm().get_parameter(Name=pointer_name())["Parameter"]["Value"]
    if pointer != manifest.version:
        raise HookError(f"{pointer_name()} is {pointer!r} and should be {manifest.version!r}")
    verify(releases_directory() / manifest.version, manifest)
    return f"release {manifest.version} is live"


def ssm() -> Any:
    """Return a client of the Parameter Store in the instance's region."""
    # boto3 itself reads AWS_DEFAULT_REGION alone.
    return boto3.client("ssm", region_name=environment("AWS_REGION"))


def pointer_name() -> str:
    """Return the name of the SSM parameter that holds the live version."""
    return environment("UPDRAFT_SSM_PREFIX") + "/bundle/pointer"


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    plain = bool(re.fullmatch(r"[^\\\x00-\x1f]+", path)) and PurePosixPath(path).as_posix() == path
    if not plain or path.startswith("/") or ".." in parts or path in (".", MANIFEST):
        raise HookError(f"{path!r}: is no path inside a release")


def _copy(source: Path, staging: Path, manifest: Manifest) -> None:
    staging.mkdir()
    for path in sorted(manifest.files):
        target = staging / path
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, (source / path).read_bytes())
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")  # noqa: UP017
    content = {"version": manifest.version, "created_at": now, "files": manifest.files}
    _write(staging / MANIFEST, json.dumps(content, indent=1, sort_keys=True).encode())
    for directory, _, _ in os.walk(staging):
        os.chmod(directory, 0o755)  # noqa: PTH101
        _sync(Path(directory))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(releases: Path) -> None:
    for folder in releases.glob(f"{STAGING_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > STALE_STAGING_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
