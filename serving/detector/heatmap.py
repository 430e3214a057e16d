"""The one way a heatmap is drawn, for API, command line, reports and page: colour on a grey photo, cell by cell.

On a grey photo the colour means the same whatever the photo's own colours are. The cells are drawn as they are: a
smoothed map promises an accuracy that the model's last layer does not have. The drawing has a palette: what costs is to
encode it, and one index a pixel is a third of the work of three colours.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

Encoding = Literal["png", "jpeg"]

FOR: Final = (230, 97, 1)
AGAINST: Final = (94, 60, 153)
"""Orange and purple: told apart by people with every common colour vision."""
OPACITY: Final = 0.7
"""Of the strongest cell; weaker ones are as much more transparent."""
SIDES_PX: Final = (192, 512)
"""Bounds of a heatmap's longer side: small pictures are enlarged so far, large ones reduced so far."""
FINE_CELLS: Final = 6
"""A map with fewer rows or columns points at a quarter of the picture rather than at a thing in it."""

_HEATS: Final = 6
"""Steps from no heat to the strongest: so few leave the palette greys enough for the photo, so many are told apart."""
_COLOURS: Final = 256
"""Of a palette of one byte a pixel."""
_GREYS: Final = 256
"""Of a photo in grey."""
_LEAST_CELL_PX: Final = 8
"""Smaller cells have no lines between them: those would hide the photo."""
_JPEG_QUALITY: Final = 85
"""Lines and edges of cells stay clean."""
_RUN_LENGTHS: Final = 3
"""zlib's strategy Z_RLE."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A photo and its heatmap, at the same size."""

    photo: Image.Image
    """RGB."""
    overlay: bytes
    """The same in grey with its heat on it, encoded."""


def draw(rgb: Image.Image, grid: Floats, encoding: Encoding, side_px: int | None = None) -> Drawing:
    """Draw and encode what `grid` says of a picture; the arguments are those of `shown` and `overlay`."""
    photo = shown(rgb, side_px)
    drawn = overlay(photo, grid)
    return Drawing(photo, encode_png(drawn) if encoding == "png" else encode_jpeg(drawn))


def shown(rgb: Image.Image, side_px: int | None = None, sides_px: tuple[int, int] = SIDES_PX) -> Image.Image:
    """The picture at the size it is shown in.

    Args:
        rgb: the picture, of any size.
        side_px: the longer side of the result; None keeps the picture's own within `sides_px`.
        sides_px: least and most pixels of the longer side.
    """
    if side_px is None:
        least, most = sides_px
        side_px = min(most, max(least, *rgb.size))
    scale = side_px / max(rgb.size)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    # by whole factors first: five times faster where the sizes are such, and no difference that a reader could see
    return rgb.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)


def overlay(picture: Image.Image, grid: Floats, opacity: float = OPACITY, *, against: bool = False) -> Image.Image:
    """The picture in grey with its heat on it, with a palette (mode P).

    Args:
        picture: RGB or grey.
        grid: signed map, (rows, columns) over the whole picture.
        opacity: of the strongest cell, 0..1.
        against: colour the cells that spoke against the verdict too, on the same scale.
    """
    said = grid if against else grid.clip(min=0.0)
    scale = float(np.abs(said).max(initial=0.0)) or 1.0
    heats = (said * (_HEATS / scale)).round().astype(np.int16)  # -6..6; below zero: against
    indices, palette = _palette(opacity, against)
    grey = np.array(picture.convert("L"))
    (height, width), (rows, columns) = grey.shape, grid.shape
    # where the greys of a pixel's heat begin in the table of indices
    firsts = (heats % (len(indices) // _GREYS) * _GREYS).astype(np.uint16)
    at = np.take(firsts[np.arange(height) * rows // height], np.arange(width) * columns // width, axis=1)
    if min(width / columns, height / rows) >= _LEAST_CELL_PX:
        for lines in (np.s_[np.arange(1, rows) * height // rows], np.s_[:, np.arange(1, columns) * width // columns]):
            # lighter than the photo, and without heat: seen on cells of any strength
            at[lines], grey[lines] = 0, grey[lines].astype(np.uint16) * 3 // 4 + 64
    at += grey
    drawn = Image.fromarray(indices[at])
    drawn.putpalette(palette)
    return drawn


@lru_cache(maxsize=8)
def _palette(opacity: float, against: bool) -> tuple[npt.NDArray[np.uint8], bytes]:
    """The index of every grey under every heat, one heat after the other (those against come last), and all as RGB.

    A strong heat leaves little of the photo to see, and so needs few of the greys.
    """
    heats = [*range(_HEATS + 1), *(range(-_HEATS, 0) if against else ())]
    seen = np.array([1.0 - opacity * abs(heat) / _HEATS for heat in heats])
    counts = 1 + ((_COLOURS - len(heats)) * seen / seen.sum()).astype(int)
    colours, indices = [], []
    for heat, share, count, end in zip(heats, seen, counts, np.cumsum(counts), strict=True):
        # grey without its ends, so that colour is seen on white and on black
        greys = 48 + (np.arange(count) + 0.5) * (184 / count)
        colours.append(greys[:, None] * share + np.array(FOR if heat > 0 else AGAINST) * (1.0 - share))
        indices.append(end - count + (np.arange(_GREYS) * count // _GREYS))
    return np.concatenate(indices).astype(np.uint8), np.concatenate(colours).round().astype(np.uint8).tobytes()


def cells(grid: Floats) -> tuple[int, int]:
    """Rows and columns that had any say: those inside the picture's borders."""
    said = grid != 0.0
    return int(said.any(axis=1).sum()), int(said.any(axis=0).sum())


def is_fine(grid: Floats) -> bool:
    """Whether the map has cells enough to point at a thing in the picture."""
    return min(cells(grid)) >= FINE_CELLS


def encode_png(image: Image.Image) -> bytes:
    """PNG by run lengths alone: on a picture of a photo the fastest way, and smaller than the search for matches."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return buffer.getvalue()


def encode_jpeg(image: Image.Image) -> bytes:
    """JPEG, for readers that need no exact pixels."""
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
