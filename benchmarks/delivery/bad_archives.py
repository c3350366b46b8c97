"""Archives that no push makes, as a plain `aws deploy create-deployment` could bring them; each spoils a good one."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

MANIFEST = "release/.release.json"
Files = dict[str, bytes]


def _changed(name: str, change: Callable[[Files], object]) -> Callable[[Path, Path], Path]:
    """An archive with the good one's files after `change`."""

    def make(good: Path, scratch: Path) -> Path:
        with zipfile.ZipFile(good) as archive:
            files = {entry: archive.read(entry) for entry in archive.namelist()}
        change(files)
        target = scratch / f"{name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in files.items():
                archive.writestr(entry, content)
        return target

    return make


def _with_link(good: Path, scratch: Path) -> Path:
    target = _changed("link", dict.copy)(good, scratch)
    with zipfile.ZipFile(target, "a") as archive:
        entry = zipfile.ZipInfo("release/link.py")
        entry.create_system = 3
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/hostname")
    return target


def _with_raw_name(good: Path, scratch: Path) -> Path:
    target = _changed("raw-name", lambda files: files.update({"release/caf0.py": b""}))(good, scratch)
    target.write_bytes(target.read_bytes().replace(b"release/caf0.py", b"release/caf\xe9.py"))
    return target


def _cut(good: Path, scratch: Path) -> Path:
    target = scratch / "cut.zip"
    target.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    return target


def _flipped(good: Path, scratch: Path) -> Path:
    content = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        entry = archive.getinfo("hooks/release_files.py")
    content[entry.header_offset + 200] ^= 0xFF
    target = scratch / "flipped.zip"
    target.write_bytes(bytes(content))
    return target


def _garbage(_good: Path, scratch: Path) -> Path:
    target = scratch / "garbage.zip"
    target.write_bytes(b"no archive" * 1000)
    return target


def _manifest(change: Callable[[dict[str, object]], object]) -> Callable[[Files], None]:
    def act(files: Files) -> None:
        content = json.loads(files[MANIFEST])
        change(content)
        files[MANIFEST] = json.dumps(content).encode()

    return act


def _swap_content(files: Files) -> None:
    files["release/small_0.py"] += b"\n# changed on the way\n"


def _many(files: Files) -> None:
    files |= {f"release/file_{number}.txt": b"" for number in range(100_000)}


def _huge(files: Files) -> None:
    files["release/huge.bin"] = bytes(300 * 2**20)


def _appspec(text: str) -> Callable[[Files], None]:
    return lambda files: files.update({"appspec.yml": text.encode()})


CASES: dict[str, Callable[[Path, Path], Path]] = {
    "archive: path with ..": _changed("dots", lambda files: files.update({"../outside.py": b""})),
    "archive: absolute path": _changed("absolute", lambda files: files.update({"/tmp/outside.py": b""})),
    "archive: symbolic link": _with_link,
    "archive: name that is not UTF-8": _with_raw_name,
    "archive: cut short": _cut,
    "archive: damaged": _flipped,
    "archive: no zip": _garbage,
    "archive: not in the bucket": lambda _good, scratch: scratch / "missing.zip",
    "archive: no appspec": _changed("no-appspec", lambda files: files.pop("appspec.yml")),
    "archive: appspec for windows": _changed("windows", _appspec("version: 0.0\nos: windows\n")),
    "archive: appspec is no YAML": _changed("yaml", _appspec("{")),
    "archive: appspec names a missing hook": _changed(
        "hook", _appspec("version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: hooks/none.py\n")
    ),
    "archive: no manifest": _changed("no-manifest", lambda files: files.pop(MANIFEST)),
    "archive: manifest of another version": _changed(
        "version", _manifest(lambda content: content.update(version="0" * 16))
    ),
    "archive: manifest with a path outside": _changed(
        "outside", _manifest(lambda content: content.update(files={"../x": "0" * 64}))
    ),
    "archive: changed file": _changed("content", _swap_content),
    "archive: surplus file": _changed("surplus", lambda files: files.update({"release/more.py": b""})),
    "archive: missing file": _changed("lacks", lambda files: files.pop("release/small_0.py")),
    "archive: 100,000 files": _changed("many", _many),
    "archive: 300 MiB file": _changed("huge", _huge),
}
