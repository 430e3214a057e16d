"""Where the photo stands in its picture: uniform borders are found, so that a canvas does not hide what it frames."""

import math
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

Floats = npt.NDArray[np.float32]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""

Extrema = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

TOLERANCE: Final = 16
"""Levels by which a border's pixels may differ from its colour: compression makes no more of a flat one."""
SMALLEST_SHARE: Final = 0.125
"""A box with a side of less than this share of the picture's is a speck on a plain picture, which is left alone."""
ROUNDS: Final = 4
"""Colours of borders that are taken off, one after the other: a letterbox on a canvas has two."""
SEARCH_PX: Final = 256
"""Borders are looked for on the picture shrunk to about this smaller side, to within a cell of it."""
MOST_SEARCHED: Final = 64 * SEARCH_PX**2
"""Pixels of that picture: more have only pictures that are longer than sixteen times their smaller side."""

MOST_CELLS: Final = 64
"""Rows and columns of a map enlarged to the whole picture, at most."""

_BEYOND: Final = ([0] * (TOLERANCE + 1) + [255] * (255 - TOLERANCE)) * 3


def content_box(rgb: Image.Image) -> Box | None:
    """The part of an RGB picture inside its uniform borders; None where there are none, or nothing else.

    The usual photo costs four lines of pixels: without a uniform edge nothing more is looked at.
    """
    colour = _edge_colour(rgb)
    if colour is None:
        return None
    width, height = rgb.size
    factor = max(1, min(width, height) // SEARCH_PX, math.ceil(math.sqrt(width * height / MOST_SEARCHED)))
    picture = rgb.reduce(factor) if factor > 1 else rgb
    left = top = 0
    for _ in range(ROUNDS):
        border = Image.new("RGB", picture.size, colour)
        inner = ImageChops.difference(picture, border).point(_BEYOND).getbbox()
        if inner is None:
            return None
        left, top = left + inner[0], top + inner[1]
        picture = picture.crop(inner)
        colour = _edge_colour(picture)
        if colour is None:
            break
    right, bottom = min(width, (left + picture.width) * factor), min(height, (top + picture.height) * factor)
    box = (left * factor, top * factor, right, bottom)
    worth_it = box != (0, 0, width, height) and right - box[0] >= SMALLEST_SHARE * width
    return box if worth_it and bottom - box[1] >= SMALLEST_SHARE * height else None


def whole_grid(grid: Floats, box: Box | None, size: tuple[int, int]) -> Floats:
    """A map of the photo inside `box` as a map of the whole picture, with cells of about the same size; 0 outside.

    Args:
        grid: float32 (rows, columns) over the box.
        box: from `content_box`; None: the grid covers the picture already.
        size: of the picture, width and height in pixels.
    """
    if box is None:
        return grid
    left, top, right, bottom = box
    y, tall = _nearest(grid.shape[0], top, bottom, size[1])
    x, wide = _nearest(grid.shape[1], left, right, size[0])
    return np.where(tall[:, None] & wide[None], grid[np.ix_(y, x)], np.float32(0.0)).astype(np.float32)


def _nearest(cells: int, start: int, end: int, length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For cells along a picture's side: which of the `cells` between two pixels each one's centre lies in, if any."""
    # never larger than those, so that each of them is shown; whole numbers, because centres may lie on their borders
    count = min(MOST_CELLS, -(-cells * length // (end - start)))
    centres = (2 * np.arange(count, dtype=np.int64) + 1) * length - 2 * count * start
    nearest = centres * cells // (2 * count * (end - start))
    return nearest.clip(0, cells - 1), (nearest >= 0) & (nearest < cells)


def _edge_colour(rgb: Image.Image) -> tuple[int, int, int] | None:
    """Colour of the first edge line whose pixels all lie within the tolerance of it."""
    width, height = rgb.size
    for edge in ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)):
        (r0, r1), (g0, g1), (b0, b1) = cast("Extrema", rgb.crop(edge).getextrema())
        if max(r1 - r0, g1 - g0, b1 - b0) <= 2 * TOLERANCE:
            return (r0 + r1) // 2, (g0 + g1) // 2, (b0 + b1) // 2
    return None
