"""Which rows of a picture a decoder really wrote: what it leaves out keeps the noise that was there before."""

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

_NOISE: Final = np.random.default_rng(20261127).integers(0, 256, 1 << 16, dtype=np.uint8).tobytes()
_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
_UNTOUCHED: Final = 0.25
"""A row is missing when at least this share of its pixels still is noise: an interlaced picture misses every other
pixel of a row, and one pixel in 256 is like the noise by chance."""


class Watched:
    """Loads a picture of Pillow's and says which share of its rows came.

    A whole picture costs one row of noise; only where that row is left, or the decoder fails, is the picture decoded
    again over noise everywhere.
    """

    def __init__(self, opened: Callable[[], ImageFile], last_row: int) -> None:
        self._open = opened
        self._last_row = last_row

    def load(self) -> tuple[Image.Image, float]:
        """The picture and the share (0 to 1) of its rows that are there."""
        image = self._open()
        row = _noise(image.mode, (image.width, 1))
        box = (0, self._last_row, image.width, self._last_row + 1)
        before = Image.new(image.mode, image.size, None)
        before.paste(row, box)
        image.im = before.im
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError):
            return self._again()
        if image.width >= 4 and image.crop(box).tobytes() == row.tobytes():
            return self._again()
        return image, 1.0

    def _again(self) -> tuple[Image.Image, float]:
        image = self._open()
        noise = _noise(image.mode, image.size)
        image.im = noise.copy().im
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError):
            # what was decoded before stays
            image.tile = []
        same = np.asarray(image) == np.asarray(noise)
        untouched = same.all(-1) if same.ndim == 3 else same
        missing = untouched.mean(axis=1) >= _UNTOUCHED
        return image, float(1.0 - missing.mean())


def _noise(mode: str, size: tuple[int, int]) -> Image.Image:
    need = size[0] * size[1] * _BYTES[mode]
    return Image.frombytes(mode, size, (_NOISE * (need // len(_NOISE) + 1))[:need])
