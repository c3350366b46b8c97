"""Processing job: pictures in the Oxford layout, checked, cropped and scaled, split into what is learned from, watched
and held out."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ml import contract
from ml.pets.layout import SPLITS, LayoutError, Pet, image_of, read_annotations, told
from ml.pets.pictures import LABELS, Array, PictureError, read

LEAST_OF_EACH = 10
MOST_UNREADABLE = 0.02
FILE = "pictures.npz"


def main(arguments: Sequence[str] = ()) -> None:
    """Read `processing/input/pets`, write one folder for each split below `processing/output`."""
    parser = argparse.ArgumentParser(prog="transform")
    parser.add_argument("--size", type=int, required=True)
    size = parser.parse_args(arguments).size
    root = contract.PROCESSING_INPUT / "pets"
    pets = read_annotations(root)
    pictures = check(pets, read_pictures(root, pets, size=size))
    for split in SPLITS:
        chosen = [pet for pet in pets if pet.split == split and pet.name in pictures]
        folder = contract.PROCESSING_OUTPUT / split
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / FILE,
            pictures=np.stack([pictures[pet.name] for pet in chosen]),
            labels=np.array([LABELS.index(pet.label) for pet in chosen], dtype=np.int64),
            names=np.array([pet.name for pet in chosen]),
        )
        print(f"{split}: {dict(Counter(pet.label for pet in chosen))}", flush=True)


def read_pictures(root: Path, pets: Sequence[Pet], *, size: int) -> dict[str, Array | str]:
    """Each pet's picture by its name, or what is wrong with it."""
    found: dict[str, Array | str] = {}
    for pet in pets:
        file = image_of(root, pet)
        if not file.is_file():
            found[pet.name] = f"{pet.name}: no picture"
            continue
        try:
            found[pet.name] = read(file.read_bytes(), size=size)
        except PictureError as error:
            found[pet.name] = f"{pet.name}: {error}"
    return found


def check(pets: Sequence[Pet], found: dict[str, Array | str]) -> dict[str, Array]:
    """The readable pictures; raises LayoutError when too many aren't, or a split has too few of a label."""
    pictures = {name: picture for name, picture in found.items() if not isinstance(picture, str)}
    unreadable = [what for what in found.values() if isinstance(what, str)]
    mistakes = []
    if len(unreadable) > MOST_UNREADABLE * len(pets):
        mistakes.append(
            f"{len(unreadable)} of {len(pets)} pictures can't be read, at most {MOST_UNREADABLE:.0%} may be: "
            f"{told(unreadable)}"
        )
    counted = Counter((pet.split, pet.label) for pet in pets if pet.name in pictures)
    mistakes += [
        f"{counted[split, label]} pictures of a {label} for {split}, at least {LEAST_OF_EACH} are needed"
        for split in SPLITS
        for label in LABELS
        if counted[split, label] < LEAST_OF_EACH
    ]
    if mistakes:
        raise LayoutError("; ".join(mistakes))
    return pictures


def load(folder: Path) -> tuple[Array, Array, list[str]]:
    """A split's pictures (count, size, size, 3) in bytes, labels, and names."""
    with np.load(folder / FILE) as file:
        return file["pictures"], file["labels"], [str(name) for name in file["names"]]
