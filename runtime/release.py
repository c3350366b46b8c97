"""Builds the bundle that is pushed: a zip whose content alone decides its version.

Standard library only: the command line builds bundles without Airflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime import release_check
from runtime.release_check import MANIFEST, ReleaseError, path_mistake, size_mistakes, version_of

HOOKS = Path(__file__).parent / "hooks"
# The earliest time that a zip can hold; a real one would make equal content unequal archives.
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
FILE_MODE = 0o644
SCRIPT_MODE = 0o755
IGNORED_FOLDERS = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"}
IGNORED_SUFFIXES = {".pyc", ".pyo"}
SHOWN = 5


@dataclass(frozen=True)
class Release:
    """A built bundle: `files` maps each path inside the release to its SHA-256 in hex."""

    version: str
    archive: Path
    files: Mapping[str, str]


def build_release(dags_directory: Path, extra: Sequence[Path], output: Path) -> Release:
    """Write `{version}.zip` into the folder `output`.

    The files of `dags_directory` lie at the root of the release, each folder of `extra` below its own name,
    so that both can be imported. Byte-code, caches and version control are left out.

    Raises ReleaseError for a missing or empty folder, one without Python files, a link, a name that is not
    UTF-8 or can't be unpacked everywhere, too many or too large files, and for two sources of one path.
    """
    sources: dict[str, Path] = dict(_files(dags_directory, prefix=""))
    if not any(path.endswith(".py") for path in sources):
        raise ReleaseError(f"{dags_directory}: has no Python files, so no DAG can be in it")
    for folder in extra:
        for path, source in _files(folder, prefix=f"{folder.name}/"):
            if path in sources:
                raise ReleaseError(f"{path}: comes from both {sources[path]} and {source}; rename one")
            sources[path] = source
    if mistakes := size_mistakes({path: source.stat().st_size for path, source in sources.items()}):
        raise ReleaseError("\n".join(f"{dags_directory}: {mistake}" for mistake in mistakes[:SHOWN]))
    contents = {path: sources[path].read_bytes() for path in sorted(sources)}
    files = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    version = version_of(files)
    manifest = json.dumps({"version": version, "files": files}, indent=1, sort_keys=True).encode()
    archive = output / f"{version}.zip"
    output.mkdir(parents=True, exist_ok=True)
    temporary = output / f".{version}.zip"
    with zipfile.ZipFile(temporary, "w") as bundle:
        _add(bundle, "appspec.yml", (HOOKS / "appspec.yml").read_bytes(), FILE_MODE)
        # The hooks run where nothing else of the project is: the rules travel with them.
        for script in [*sorted(HOOKS.glob("*.py")), Path(release_check.__file__)]:
            _add(bundle, f"hooks/{script.name}", script.read_bytes(), SCRIPT_MODE)
        _add(bundle, f"release/{MANIFEST}", manifest, FILE_MODE)
        for path, content in contents.items():
            _add(bundle, f"release/{path}", content, FILE_MODE)
    temporary.replace(archive)
    return Release(version=version, archive=archive, files=files)


def _files(folder: Path, *, prefix: str) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise ReleaseError(f"{folder}: is no folder")
    found = False
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in IGNORED_FOLDERS)
        for name in sorted([*folders, *names]):
            _check_entry(Path(directory), name)
        for name in sorted(names):
            source = Path(directory) / name
            if source.suffix in IGNORED_SUFFIXES or name == ".DS_Store":
                continue
            found = True
            path = prefix + source.relative_to(folder).as_posix()
            if path == MANIFEST:
                raise ReleaseError(f"{source}: the name {MANIFEST} is kept for the release's own manifest")
            yield path, source
    if not found:
        raise ReleaseError(f"{folder}: is empty")


def _check_entry(directory: Path, name: str) -> None:
    path = directory / name
    if mistake := path_mistake(name):
        if name == MANIFEST:
            return
        raise ReleaseError(f"{os.fsencode(directory).decode('utf-8', 'backslashreplace')}: {mistake}")
    if path.is_symlink():
        raise ReleaseError(
            f"{path}: is a symbolic link; a release holds plain files, put the file in its place"
        )
    if not path.is_dir() and not path.is_file():
        raise ReleaseError(f"{path}: is neither a file nor a folder")


def _add(bundle: zipfile.ZipFile, path: str, content: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(path, date_time=FIXED_TIME)
    # Unix, whatever machine builds it: the system is part of the archive's bytes.
    entry.create_system = 3
    entry.external_attr = (0o100000 | mode) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    bundle.writestr(entry, content, compresslevel=6)
