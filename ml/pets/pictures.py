"""Pictures of pets: how they become the numbers that the model takes, the same in training and in the application."""

from __future__ import annotations

import io
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LABELS = ("cat", "dog")
FORMATS = ("JPEG", "PNG")
# More is no photograph: a small file can unfold to gigabytes.
MOST_PIXELS = 40_000_000
Array: TypeAlias = np.ndarray[Any, Any]


class PictureError(ValueError):
    """Bytes that are no picture of a kind that is taken."""


def read(content: bytes, *, size: int) -> Array:
    """A picture as `size` x `size` RGB bytes: turned upright, its middle square, scaled.

    Raises PictureError for what isn't a whole JPEG or PNG picture of a sensible size.
    """
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > MOST_PIXELS:
            raise PictureError(
                f"{picture.width} x {picture.height} pixels came; at most {MOST_PIXELS:,} are taken"
            )
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"this is no {' or '.join(FORMATS)} picture") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"the picture can't be read: {error}") from error
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def as_input(pictures: Array) -> Array:
    """RGB bytes (count, height, width, 3) as the model's input (count, 3, height, width), each channel about -2 to 2.

    Each picture is set to its own mean and deviation: exposure says nothing about the animal.
    """
    values = pictures.astype(np.float32)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    deviation = values.std(axis=(1, 2, 3), keepdims=True)
    inputs: Array = np.ascontiguousarray(((values - mean) / (deviation + 1.0)).transpose(0, 3, 1, 2))
    return inputs
