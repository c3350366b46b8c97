"""Images as folders: what a Dockerfile copies and sets, without anything being built or run.

A container here is a process. Its Python environment is the one of the image's lock (`docker/<name>/`), its files
are laid out below a folder that stands for `/`, and paths inside the container become paths on this machine
wherever they appear in its command or environment.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.paths import LocalPaths

IGNORED = {"FROM", "RUN", "USER", "EXPOSE", "LABEL", "VOLUME"}


class ImageError(Exception):
    """An image that can't be found, read, or run here."""


@dataclass(frozen=True)
class Image:
    """An image as it lies on this machine; `root` stands for `/`."""

    name: str
    root: Path
    environment: Mapping[str, str]
    workdir: str
    entrypoint: list[str]
    copied: list[str] = field(default_factory=list)

    def python_bin(self, paths: LocalPaths) -> Path:
        """The folder with this image's Python; raises ImageError when its environment has not been made."""
        directory = paths.environments / self.name / "bin"
        if not (directory / "python").exists():
            raise ImageError(
                f"the environment of image '{self.name}' is not there; make it with: ./updraft up --pipelines"
            )
        return directory


def load(paths: LocalPaths, uri: str) -> Image:
    """Find an image by its URI: one that was pushed, or one whose tag is the hash of its build context, laid out once.

    Raises ImageError when no cloud assembly knows the hash, or its Dockerfile has an instruction unknown here.
    """
    if (pushed_image(paths, uri) / "image.json").is_file():
        return _read(pushed_image(paths, uri))
    tag = uri.rpartition(":")[2]
    if not re.fullmatch(r"[0-9a-f]{64}", tag):
        raise ImageError(f"image {uri}: nobody has pushed it, and its tag is not the hash of a build context")
    target = paths.images / tag
    if not (target / "image.json").is_file():
        name, context = find_context(paths, tag)
        lay_out(name, context, target)
    return _read(target)


def pushed_image(paths: LocalPaths, uri: str) -> Path:
    """Where an image lies that a build has pushed to a repository."""
    return paths.images / "pushed" / hashlib.sha256(uri.encode()).hexdigest()


def _read(target: Path) -> Image:
    described = json.loads((target / "image.json").read_text())
    return Image(root=target / "root", **described)


def find_context(paths: LocalPaths, tag: str) -> tuple[str, Path]:
    """Name and staged build context of the image with this hash; raises ImageError when no assembly has it."""
    for manifest in sorted(paths.cloud_assembly.glob("*.assets.json")):
        for asset in json.loads(manifest.read_text()).get("dockerImages", {}).values():
            if any(place["imageTag"] == tag for place in asset["destinations"].values()):
                return asset["displayName"], paths.cloud_assembly / asset["source"]["directory"]
    raise ImageError(f"no build context with hash {tag} in {paths.cloud_assembly}; deploy again")


def lay_out(name: str, context: Path, target: Path) -> None:
    """Do at `target` what the Dockerfile of a build context says; the image's environment is that of `docker/{name}`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    environment: dict[str, str] = {}
    workdir, entrypoint, copied = "/", [], []
    for instruction, rest in _instructions((context / "Dockerfile").read_text()):
        if instruction == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif instruction == "WORKDIR":
            workdir = rest.strip()
        elif instruction == "ENTRYPOINT":
            entrypoint = json.loads(rest)
        elif instruction == "COPY":
            copied.append(_copy(context, partial / "root", rest))
        elif instruction not in IGNORED:
            raise ImageError(
                f"docker/{name}/Dockerfile: the laptop does not know the instruction {instruction}"
            )
    described = {
        "name": name,
        "environment": environment,
        "workdir": workdir,
        "entrypoint": entrypoint,
        "copied": sorted(set(copied)),
    }
    (partial / "image.json").write_text(json.dumps(described))
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)


def _instructions(dockerfile: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", dockerfile)
    lines = (line.strip() for line in joined.splitlines())
    split = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(instruction.upper(), rest) for instruction, _, rest in split]


def _copy(context: Path, root: Path, rest: str) -> str:
    """Copy one source to its place and return the folder that it now is, or lies in, in the container."""
    source_name, target_name = shlex.split(rest)
    source, target = context / source_name, root / target_name.lstrip("/")
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return target_name.rstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return str(Path(target_name).parent)


class PathMap:
    """Rewrites container paths to paths on this machine, wherever one stands alone in a text."""

    def __init__(self, places: Mapping[str, Path], *, address: str | None = None) -> None:
        self._places = {place.rstrip("/"): host for place, host in places.items()}
        longest_first = sorted(self._places, key=len, reverse=True)
        alternatives = "|".join(re.escape(place) for place in longest_first)
        # A path stands alone when no part of a longer path or URL precedes it, and it ends at a boundary.
        self._pattern = re.compile(rf"(?<![\w./-])({alternatives})(?=[/\"':,;\s\])}}]|$)")
        self._address = address

    def rewrite(self, text: str) -> str:
        """The text as the process on this machine needs it; `0.0.0.0` becomes the container's own address."""
        text = self._pattern.sub(lambda match: str(self._places[match[1]]), text)
        return re.sub(r"(?<![\d.])0\.0\.0\.0(?![\d.])", self._address, text) if self._address else text
