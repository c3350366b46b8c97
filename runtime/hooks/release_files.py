"""What the deployment hooks do: stage the bundle's release, have it tested, point to it, see it served, prune.

Runs with the bastion's own Python (3.9) and boto3; nothing else of the project is there. Each step may run twice.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from release_check import (  # type: ignore[import-not-found]
    MANIFEST,
    VERSION,
    Manifest,
    ReleaseError,
    check_release,
    read_manifest,
)

BUNDLE = Path(__file__).resolve().parents[1]
# A release becomes `{version}` when it has been tested; until then it has this name, and any other is left over:
# a deployment group has one deployment at a time.
CANDIDATE_PREFIX = ".candidate-"
KEPT_PUSHES = 20
# Many releases may be out of use at once, and removing a file of EFS takes milliseconds: the hook has a time-out.
PRUNE_SECONDS = 60
# A hook that takes longer tells this often that it lives: CodeDeploy itself would miss a dead agent for an hour.
SIGN_OF_LIFE_SECONDS = 15


class HookError(Exception):
    """The deployment fails with this text."""


def run(*steps: Callable[[], str]) -> None:
    """Run the steps and print what each says; a failure is told on standard error, with exit status 1."""
    ended = threading.Event()
    threading.Thread(target=_tell_signs_of_life, args=(ended,), daemon=True).start()
    try:
        for step in steps:
            print(step(), flush=True)
    except (HookError, ReleaseError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except OSError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error.filename or ''}: {error.strerror or error}")
    finally:
        ended.set()


def _tell_signs_of_life(ended: threading.Event) -> None:
    while not ended.wait(SIGN_OF_LIFE_SECONDS):
        # Most hooks end before, and are spared the import.
        import platform_client  # type: ignore[import-not-found]

        try:
            platform_client.tell_sign_of_life()
        except Exception as error:
            print(f"no sign of life could be given: {error}", flush=True)


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


def candidate_name(version: str) -> str:
    """Return the name that a release has on the shared file system until it has been tested."""
    return f"{CANDIDATE_PREFIX}{version}"


def stage() -> str:
    """Copy the bundle's release to the shared file system as a candidate, whole or not at all."""
    releases = releases_directory()
    manifest = bundle_manifest()
    source = BUNDLE / "release"
    check_release(source, manifest)
    for left_over in releases.glob(".*"):
        _remove(left_over)
    if (releases / manifest.version).exists():
        check_release(releases / manifest.version, manifest)
        return f"release {manifest.version} is on the shared file system already"
    partial = releases / f".partial-{secrets.token_hex(4)}"
    try:
        _copy(source, partial, manifest)
        check_release(partial, manifest)
        partial.rename(releases / candidate_name(manifest.version))
    finally:
        _remove(partial)
    _sync(releases)
    return f"release {manifest.version} is staged with {len(manifest.files)} files"


def accept() -> str:
    """Give the tested candidate its name; from here on it never changes."""
    releases = releases_directory()
    manifest = bundle_manifest()
    candidate, target = releases / candidate_name(manifest.version), releases / manifest.version
    if not target.exists():
        check_release(candidate, manifest)
        candidate.rename(target)
        _sync(releases)
    check_release(target, manifest)
    return f"release {manifest.version} is accepted"


def reject() -> None:
    """Remove the candidate of a release that failed its test."""
    _remove(releases_directory() / candidate_name(bundle_manifest().version))


def prune(needed: set[str], live: str) -> str:
    """Remove releases that nobody needs: neither live, nor needed by a run, nor among the newest pushes.

    What there is no time for is left to the next push.
    """
    deadline = time.monotonic() + PRUNE_SECONDS
    releases = releases_directory()
    found = [folder for folder in releases.iterdir() if VERSION.fullmatch(folder.name)]
    found.sort(key=lambda folder: (folder.stat().st_mtime, folder.name), reverse=True)
    surplus = [it for it in found[KEPT_PUSHES:] if it.name not in needed and it.name != live]
    pruned = 0
    for folder in surplus:
        # Out of sight at once: nobody may find half a release.
        doomed = releases / f".pruned-{folder.name}"
        folder.rename(doomed)
        _remove(doomed)
        pruned += 1
        if time.monotonic() > deadline:
            break
    return f"pruned {pruned} of {len(found)} releases"


def mark_pushed(version: str) -> None:
    """Remember the time of a push: pruning goes by it."""
    os.utime(releases_directory() / version)


def _copy(source: Path, target: Path, manifest: Manifest) -> None:
    target.mkdir()
    for path in sorted(manifest.files):
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, (source / path).read_bytes())
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")  # noqa: UP017
    content = {"version": manifest.version, "created_at": now, "files": manifest.files}
    _write(target / MANIFEST, json.dumps(content, indent=1, sort_keys=True).encode())
    for directory, _, _ in os.walk(target):
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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
