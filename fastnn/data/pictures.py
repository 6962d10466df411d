"""Pictures of one sample each, brought into the form of MNIST: grey, square, light on dark."""

from __future__ import annotations

import math
import os
import warnings

import numpy as np

from fastnn.data.arrays import Array
from fastnn.data.reading import opened
from fastnn.errors import ArgumentError, DataError

__all__ = ["PICTURES", "read_picture"]

# The endings of names that are taken for pictures.
PICTURES = (".png", ".jpg", ".jpeg")

_MID_GREY = 127


def read_picture(path: str | os.PathLike[str], features: int) -> Array:
    """Read a PNG or JPEG as one sample for a network of `features` inputs.

    The picture is inverted if its border is light, scaled until its longer side has √features
    pixels, and padded to a square.

    Parameters
    ----------
    path : str or PathLike
        The file.
    features : int
        A square number.

    Returns
    -------
    (1, features) array of uint8

    Raises
    ------
    ArgumentError
        Pillow, of the extra ``image``, is not installed.
    DataError
        The file is missing or malformed or too large, or `features` is no square number.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise ArgumentError(
            "pictures need Pillow, which the extra 'image' brings: pip install -e '.[image]'"
        ) from None
    side = math.isqrt(features)
    if side * side != features:
        raise DataError(
            f"{os.fspath(path)}: a network of {features} inputs takes no square picture"
        )
    with opened(os.fspath(path)) as (file, _), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as picture:
                pixels = _grey(ImageOps.exif_transpose(picture))
        except OSError as error:
            raise DataError("is no whole PNG or JPEG picture") from error
        except Exception as error:  # a malformed file can make the decoders raise anything
            raise DataError(f"is malformed: {type(error).__name__}: {error}") from error
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > _MID_GREY:
        pixels = 255 - pixels
    height, width = (max(1, round(n * side / max(pixels.shape))) for n in pixels.shape)
    scaled = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = np.asarray(scaled)
    return square.reshape(1, features)


def _grey(picture: object) -> Array:
    """Return the grey levels (height, width) as bytes, on a paper that the ink stands out from."""
    from PIL import Image

    assert isinstance(picture, Image.Image)
    if picture.mode.startswith("I"):  # 16 bits, which convert() would clip and not scale
        return (np.asarray(picture) // 257).astype(np.uint8)
    grey, alpha = (np.asarray(band, np.float64) for band in picture.convert("LA").split())
    ink = np.average(grey, weights=alpha) if alpha.any() else 0
    paper = 0 if ink > _MID_GREY and alpha.min() < 255 else 255
    covered = alpha / 255
    return np.rint(covered * grey + (1 - covered) * paper).astype(np.uint8)
