"""What a release may hold: the manifest, the paths, the sizes and the hashes.

Standard library only: the command line, the deployment hooks on the bastion and the containers check by the same rules.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MANIFEST = ".release.json"
VERSION = re.compile(r"[0-9a-f]{16}")
DIGEST = re.compile(r"[0-9a-f]{64}")
# EFS takes about 5 ms for an operation (benchmarks/delivery/aws_model.py): a release of this size is staged in 50 s of
# its hook's 120 s, and the verifier and the dag-processor have their copies after 30 s each of 150 s and more.
MOST_FILES = 2_000
MOST_FILE_BYTES = 64 * 2**20
MOST_RELEASE_BYTES = 256 * 2**20
MOST_MANIFEST_BYTES = 8 * 2**20
SHOWN = 5


class ReleaseError(ValueError):
    """A folder is no release, or not the one that its manifest says; every mistake that was found, one line each."""


@dataclass(frozen=True)
class Manifest:
    """`files` maps each path of the release to its SHA-256 in hex; `version` is their digest."""

    version: str
    files: Mapping[str, str]


def version_of(files: Mapping[str, str]) -> str:
    """Return the first 16 hex digits of the SHA-256 over the sorted paths and file hashes."""
    lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the release in `folder`.

    Raises ReleaseError for one that is damaged or breaks a rule, OSError when it can't be read.
    """
    file = folder / MANIFEST
    if file.stat().st_size > MOST_MANIFEST_BYTES:
        raise ReleaseError(
            f"{file}: has {file.stat().st_size} bytes, at most {MOST_MANIFEST_BYTES} are allowed"
        )
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
        manifest = Manifest(version=content["version"], files=dict(content["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{file}: is no manifest of a release: {error!r}") from error
    mistakes = [mistake for path in manifest.files if (mistake := path_mistake(path))]
    if not all(isinstance(it, str) and DIGEST.fullmatch(it) for it in manifest.files.values()):
        mistakes.append("a hash is not 64 hex digits")
    if len(manifest.files) > MOST_FILES:
        mistakes.append(f"{len(manifest.files)} files, at most {MOST_FILES} are allowed")
    if not manifest.files:
        mistakes.append("names no files")
    if not mistakes and manifest.version != version_of(manifest.files):
        mistakes.append(f"says version {manifest.version!r}, its files make {version_of(manifest.files)!r}")
    _raise(file, mistakes)
    return manifest


def path_mistake(path: object) -> str:
    """What is wrong with a path inside a release; an empty string when nothing is."""
    if not isinstance(path, str):
        return f"{path!r}: is no path"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return f"{os.fsencode(path).decode('utf-8', 'backslashreplace')}: the name is not UTF-8; rename it"
    if "\\" in path or any(ord(character) < 32 for character in path):
        return f"{path!r}: the name has a backslash or a control character; rename it"
    pure = PurePosixPath(path)
    if pure.as_posix() != path or pure.is_absolute() or ".." in pure.parts or path in (".", MANIFEST):
        return f"{path!r}: is no path inside a release"
    return ""


def size_mistakes(sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with the number of files and their sizes in bytes."""
    mistakes = [
        f"{path}: has {size} bytes, a file may have {MOST_FILE_BYTES}; large data belongs in the data bucket"
        for path, size in sizes.items()
        if size > MOST_FILE_BYTES
    ]
    if len(sizes) > MOST_FILES:
        mistakes.append(f"{len(sizes)} files, a release may have {MOST_FILES}")
    if (total := sum(sizes.values())) > MOST_RELEASE_BYTES:
        mistakes.append(f"{total} bytes, a release may have {MOST_RELEASE_BYTES}")
    return mistakes


def check_release(folder: Path, manifest: Manifest) -> None:
    """Raise ReleaseError unless `folder` holds exactly the manifest's files with their hashes, and OSError when it
    can't be read."""
    sizes, mistakes = _walk(folder)
    mistakes += [f"lacks {path}" for path in sorted(manifest.files.keys() - sizes.keys())[:SHOWN]]
    mistakes += [
        f"holds a file that its manifest lacks: {path}"
        for path in sorted(sizes.keys() - manifest.files.keys())[:SHOWN]
    ]
    mistakes += size_mistakes(sizes)
    _raise(folder, mistakes)
    for path, digest in manifest.files.items():
        if _digest(folder / path) != digest:
            mistakes.append(f"{path}: differs from its hash in the manifest")
    _raise(folder, mistakes)


def _walk(folder: Path) -> tuple[dict[str, int], list[str]]:
    sizes: dict[str, int] = {}
    mistakes: list[str] = []

    def fail(error: OSError) -> None:
        raise error

    for directory, folders, names in os.walk(folder, onerror=fail):
        for name in [*folders, *names]:
            entry = Path(directory) / name
            path = entry.relative_to(folder).as_posix()
            status = entry.lstat()
            if stat.S_ISLNK(status.st_mode):
                mistakes.append(f"{path}: is a symbolic link; a release holds plain files")
            elif not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                mistakes.append(f"{path}: is neither a file nor a folder")
            elif stat.S_ISREG(status.st_mode) and path != MANIFEST:
                sizes[path] = status.st_size
        if len(sizes) > MOST_FILES:
            return sizes, mistakes
    return sizes, mistakes


def _digest(file: Path) -> str:
    # The bastion's Python is older than hashlib.file_digest; the largest file is bounded above.
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _raise(where: Path, mistakes: list[str]) -> None:
    if mistakes:
        shown = mistakes[:SHOWN] + ([f"and {len(mistakes) - SHOWN} more"] if len(mistakes) > SHOWN else [])
        raise ReleaseError("\n".join(f"{where}: {mistake}" for mistake in shown))
