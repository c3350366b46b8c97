"""Pictures of the project's own, where no source is configured: cats and dogs that a program draws.

Place, size, turn, colours and the contrast's direction are chance, so that no pixel tells the label: it is in the
shapes alone (pointed or hanging ears, the muzzle, the pupils).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ml.pets.layout import Pet, image_of, write_annotations

Generator: TypeAlias = np.random.Generator
Point = tuple[float, float]
SHORT_SIDE = (84, 110)
LONG_PER_SHORT = (1.0, 1.4)
# Of the short side: how large a head is.
RADIUS = (0.21, 0.28)
STRAY_SHAPES = 5
NOISE = (4.0, 14.0)
JPEG_QUALITY = 88


def draw_pets(root: Path, *, count: int, seed: int) -> None:
    """Write `count` pictures, half of them cats, and their annotations in the Oxford layout."""
    chance = np.random.default_rng(seed)
    pets = [
        Pet(f"{'Tabby' if number % 2 == 0 else 'terrier'}_{number}", "cat" if number % 2 == 0 else "dog")
        for number in range(count)
    ]
    for pet in pets:
        file = image_of(root, pet)
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(pet.label, chance).save(file, quality=JPEG_QUALITY)
    write_annotations(root, pets)


def draw(label: str, chance: Generator) -> Image.Image:
    """One picture of a cat or a dog."""
    short = int(chance.integers(*SHORT_SIDE))
    long = int(short * chance.uniform(*LONG_PER_SHORT))
    width, height = (long, short) if chance.random() < 0.5 else (short, long)
    picture = _background(width, height, chance)
    pen = ImageDraw.Draw(picture)
    light, dark = _colour(chance, 150, 250), _colour(chance, 5, 105)
    fur, marks = (light, dark) if chance.random() < 0.5 else (dark, light)
    _Head(pen, chance, width=width, height=height, short=short, fur=fur, marks=marks).draw(label)
    noise = chance.normal(0, chance.uniform(*NOISE), (height, width, 1))
    pixels = np.clip(np.asarray(picture, dtype=np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(float(chance.uniform(0, 0.8))))


def _background(width: int, height: int, chance: Generator) -> Image.Image:
    """A slope between two colours, with stray shapes on it."""
    first, second = (np.array(_colour(chance, 20, 235), dtype=np.float32) for _ in range(2))
    turn = chance.uniform(0, 2 * math.pi)
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = (across * math.cos(turn) + down * math.sin(turn) + math.sqrt(2)) / (2 * math.sqrt(2))
    picture = Image.fromarray((first + (second - first) * slope[..., None]).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(STRAY_SHAPES):
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        reach = chance.uniform(3, 12)
        box = (x - reach, y - reach, x + reach, y + reach)
        colour = _colour(chance, 20, 235)
        if chance.random() < 0.5:
            pen.ellipse(box, fill=colour)
        else:
            pen.polygon([(x - reach, y + reach), (x + reach, y + reach), (x, y - reach)], fill=colour)
    return picture


def _colour(chance: Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in chance.integers(low, high, 3))
    return red, green, blue


class _Head:
    """A head at a place of its own; shapes are given in its radius, before its turn."""

    def __init__(
        self,
        pen: ImageDraw.ImageDraw,
        chance: Generator,
        *,
        width: int,
        height: int,
        short: int,
        fur: tuple[int, int, int],
        marks: tuple[int, int, int],
    ) -> None:
        self._pen, self._fur, self._marks = pen, fur, marks
        self._radius = short * chance.uniform(*RADIUS)
        # Anywhere in the middle square that is left after cropping, ears included.
        room = max(0.0, short / 2 - 1.6 * self._radius)
        self._x = width / 2 + chance.uniform(-room, room)
        self._y = height / 2 + chance.uniform(-room, room)
        self._turn = chance.uniform(-0.45, 0.45)

    def draw(self, label: str) -> None:
        if label == "cat":
            for side in (-1, 1):
                self._shape([(side * 0.95, -0.35), (side * 0.2, -0.9), (side * 0.85, -1.55)], self._fur)
            self._oval(0, 0, 1.0, 0.9, self._fur)
            for side in (-1, 1):
                self._oval(side * 0.4, -0.15, 0.1, 0.24, self._marks)
                for lift in (0.2, 0.42):
                    self._line((side * 0.25, 0.35), (side * 1.15, lift))
            self._shape([(-0.14, 0.25), (0.14, 0.25), (0, 0.42)], self._marks)
        else:
            self._oval(0, 0, 0.85, 1.0, self._fur)
            for side in (-1, 1):
                self._oval(side * 0.95, 0.15, 0.3, 0.8, self._fur)
                self._outline(side * 0.95, 0.15, 0.3, 0.8)
                self._oval(side * 0.35, -0.25, 0.15, 0.15, self._marks)
            self._outline(0, 0.45, 0.45, 0.38)
            self._oval(0, 0.28, 0.22, 0.15, self._marks)

    def _at(self, x: float, y: float) -> Point:
        cos, sin = math.cos(self._turn), math.sin(self._turn)
        return self._x + self._radius * (x * cos - y * sin), self._y + self._radius * (x * sin + y * cos)

    def _round(self, x: float, y: float, across: float, down: float) -> list[Point]:
        angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        return [self._at(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]

    def _shape(self, points: list[Point], colour: Any) -> None:
        self._pen.polygon([self._at(*point) for point in points], fill=colour)

    def _oval(self, x: float, y: float, across: float, down: float, colour: Any) -> None:
        self._pen.polygon(self._round(x, y, across, down), fill=colour)

    def _outline(self, x: float, y: float, across: float, down: float) -> None:
        self._pen.polygon(self._round(x, y, across, down), outline=self._marks, width=2)

    def _line(self, start: Point, end: Point) -> None:
        self._pen.line([self._at(*start), self._at(*end)], fill=self._marks, width=1)
