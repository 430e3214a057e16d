"""Which rows of a picture a decoder really wrote: what it leaves out keeps the noise that was there before."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

_NOISE: Final = np.random.default_rng(20261127).integers(0, 256, 1 << 16, dtype=np.uint8).tobytes()
_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
_BLANK: Final[dict[str, int | tuple[int, ...]]] = {
    "P": 0,
    "I;16": 65535,
    "LA": (255, 255),
    "RGB": (255, 255, 255),
    "RGBA": (255, 255, 255, 255),
}
"""White, where it is not 255; the colours of a palette are unknown here."""
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
        width, last = image.width, self._last_row
        row = _row(image.mode, width)
        before = Image.core.new(image.mode, image.size)  # type: ignore[attr-defined] # the stubs lack it
        before.paste(row, (0, last, width, last + 1))
        image.im = before
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError):
            return self._again()
        there = image.im.getpixel
        if all(there((x, last)) == row.getpixel((x, 0)) for x in (0, width // 3, width // 2, width - 1)):
            return self._again()
        return image, 1.0

    def _again(self) -> tuple[Image.Image, float]:
        opened = self._open()
        noise = _noise(opened.mode, opened.size)
        image = self._over(noise.copy())
        same = np.asarray(image) == np.asarray(noise)
        untouched = same.all(-1) if same.ndim == 3 else same
        missing = untouched.mean(axis=1) >= _UNTOUCHED
        del same, untouched, noise
        if missing.any():
            # what is missing is the page behind it
            image = self._over(Image.new(image.mode, image.size, _BLANK.get(image.mode, 255)))
        return image, float(1.0 - missing.mean())

    def _over(self, before: Image.Image) -> Image.Image:
        """The picture as far as it goes, over another of its size and mode."""
        image = self._open()
        image.im = before.im
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError):
            # what was decoded before stays
            image.tile = []
        return image


@lru_cache(maxsize=8)
def _row(mode: str, width: int) -> Any:
    """One row of noise, as Pillow's core holds it."""
    return _noise(mode, (width, 1)).im


def _noise(mode: str, size: tuple[int, int]) -> Image.Image:
    need = size[0] * size[1] * _BYTES[mode]
    return Image.frombytes(mode, size, (_NOISE * (need // len(_NOISE) + 1))[:need])
