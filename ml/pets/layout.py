"""The layout of the Oxford-IIIT Pet data: `images/NAME.jpg`, and `annotations/list.txt` with what is on each.

Source: https://www.robots.ox.ac.uk/~vgg/data/pets/ (lines `NAME CLASS-ID SPECIES BREED-ID`, species 1 cat, 2 dog).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

IMAGES, ANNOTATIONS = "images", "annotations/list.txt"
LABEL_OF_SPECIES = {"1": "cat", "2": "dog"}
SPLITS = ("train", "validation", "heldout")
TRAIN_PERCENT, VALIDATION_PERCENT = 70, 15
# So many mistakes are told; the rest is counted.
TOLD = 5


class LayoutError(ValueError):
    """Every mistake of a source."""


@dataclass(frozen=True)
class Pet:
    """One annotated picture; `label` is `cat` or `dog`."""

    name: str
    label: str

    @property
    def split(self) -> str:
        """Always the same for a name, so that a picture never moves from held-out to training."""
        place = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % 100
        if place < TRAIN_PERCENT:
            return "train"
        return "validation" if place < TRAIN_PERCENT + VALIDATION_PERCENT else "heldout"


def read_annotations(root: Path) -> list[Pet]:
    """The pets of `annotations/list.txt`, in its order; raises LayoutError naming the lines that aren't understood."""
    file = root / ANNOTATIONS
    if not file.is_file():
        raise LayoutError(
            f"{ANNOTATIONS} is not there; the source must have {ANNOTATIONS} and {IMAGES}/*.jpg"
        )
    pets, mistakes, seen = [], [], set()
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 4 or words[2] not in LABEL_OF_SPECIES or "/" in words[0]:
            mistakes.append(f"line {number}: {line[:60]!r} is not NAME CLASS SPECIES(1|2) BREED")
        elif words[0] in seen:
            mistakes.append(f"line {number}: {words[0]} is there twice")
        else:
            seen.add(words[0])
            pets.append(Pet(words[0], LABEL_OF_SPECIES[words[2]]))
    if mistakes:
        raise LayoutError(f"{ANNOTATIONS}: {told(mistakes)}")
    return pets


def write_annotations(root: Path, pets: Iterable[Pet]) -> None:
    """Write `annotations/list.txt`, with one breed for each species."""
    species = {label: number for number, label in LABEL_OF_SPECIES.items()}
    lines = ["#Image CLASS-ID SPECIES BREED ID"]
    lines += [f"{pet.name} {species[pet.label]} {species[pet.label]} 1" for pet in pets]
    file = root / ANNOTATIONS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def image_of(root: Path, pet: Pet) -> Path:
    """Where a pet's picture lies."""
    return root / IMAGES / f"{pet.name}.jpg"


def told(mistakes: list[str]) -> str:
    """The first mistakes, and how many more there are."""
    more = f"; and {len(mistakes) - TOLD} more" if len(mistakes) > TOLD else ""
    return "; ".join(mistakes[:TOLD]) + more
