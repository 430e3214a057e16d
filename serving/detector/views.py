"""Views of a photo at its own resolution: crops at fixed places, so that no resize takes its finest traces away."""

from collections.abc import Sequence
from math import isqrt
from typing import Final

import numpy as np

from serving.detector.framing import Box, Floats, whole_grid

COUNTS: Final = (1, 4, 9)
"""Crops that a model may take: the middle, or a square grid of them."""


def crop_boxes(size: tuple[int, int], side_px: int, count: int) -> list[Box]:
    """Where the crops of a picture lie, row by row, spread evenly from edge to edge; they overlap where it is small.

    Args:
        size: of the picture, width and height in pixels.
        side_px: of the square crops; where the picture has less, they are as large as its smaller side.
        count: of `COUNTS`.
    """
    side, per_side = min(side_px, *size), isqrt(count)
    lefts, tops = (_starts(length - side, per_side) for length in size)
    return [(left, top, left + side, top + side) for top in tops for left in lefts]


def over_picture(grids: Sequence[Floats], boxes: Sequence[Box | None], size: tuple[int, int]) -> Floats:
    """Maps of a picture's parts as one map of the picture: their mean where several look, 0 where none does.

    Args:
        grids: float32 (rows, columns), one for each box.
        boxes: all of one size; None: the whole picture.
        size: of the picture, width and height in pixels.
    """
    total = sum(whole_grid(grid, box, size) for grid, box in zip(grids, boxes, strict=True))
    looking = sum(whole_grid(np.ones_like(grid), box, size) for grid, box in zip(grids, boxes, strict=True))
    mean: Floats = (total / np.maximum(looking, 1)).astype(np.float32)
    return mean


def _starts(room: int, count: int) -> list[int]:
    return [room // 2] if count == 1 else [room * at // (count - 1) for at in range(count)]
