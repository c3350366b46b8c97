"""Processing job: pictures of pets in the Oxford layout, from wherever they come.

`--url URL` downloads `URL/images.tar.gz` and `URL/annotations.tar.gz`, as the data's makers publish them; without it,
what SageMaker has put in `processing/input/source` is taken, and where there is nothing, pictures are drawn.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from ml import contract
from ml.pets.draw import draw_pets
from ml.pets.layout import ANNOTATIONS, IMAGES, image_of, read_annotations, write_annotations

ARCHIVES = ("images.tar.gz", "annotations.tar.gz")
TIMEOUT_SECONDS = 60


def main(arguments: Sequence[str] = ()) -> None:
    """Write the layout below `processing/output/pets`."""
    parser = argparse.ArgumentParser(prog="fetch")
    parser.add_argument("--url", default="")
    parser.add_argument("--pictures", type=int, required=True)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    target = contract.PROCESSING_OUTPUT / "pets"
    target.mkdir(parents=True, exist_ok=True)
    source = contract.PROCESSING_INPUT / "source"
    if given.url:
        with tempfile.TemporaryDirectory() as folder:
            download(given.url, Path(folder))
            take(Path(folder), target, most=given.pictures)
    elif source.is_dir():
        take(source, target, most=given.pictures)
    else:
        draw_pets(target, count=given.pictures, seed=given.seed)
    print(f"{len(list((target / IMAGES).glob('*.jpg')))} pictures", flush=True)


def download(url: str, folder: Path) -> None:
    """Fetch and unpack the archives that lie at a URL."""
    for name in ARCHIVES:
        archive = folder / name
        with (
            urllib.request.urlopen(f"{url.rstrip('/')}/{name}", timeout=TIMEOUT_SECONDS) as answer,
            archive.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
        with tarfile.open(archive) as files:
            _unpack(files, folder)
        archive.unlink()


def take(source: Path, target: Path, *, most: int) -> None:
    """Copy the annotated pictures of a layout, evenly thinned out to `most`; the annotations name exactly these."""
    pets = read_annotations(source)
    step = max(1.0, len(pets) / most)
    chosen = [pets[int(index * step)] for index in range(min(most, len(pets)))]
    for pet in chosen:
        # A picture that is missing is the next step's to tell, with all others.
        if (file := image_of(source, pet)).is_file():
            copy = image_of(target, pet)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    write_annotations(target, chosen)


def _unpack(files: tarfile.TarFile, folder: Path) -> None:
    """Only plain files of the layout, and only inside the folder."""
    for member in files:
        wanted = member.name.removeprefix("./")
        inside = (folder / wanted).resolve().is_relative_to(folder.resolve())
        if member.isfile() and inside and (wanted.startswith(f"{IMAGES}/") or wanted == ANNOTATIONS):
            content = files.extractfile(member)
            assert content is not None, "it is a file"
            place = folder / wanted
            place.parent.mkdir(parents=True, exist_ok=True)
            with content, place.open("wb") as file:
                shutil.copyfileobj(content, file)
