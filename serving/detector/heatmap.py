"""The one way a heatmap is drawn, for API, command line, reports and page: colour on a grey photo, cell by cell.

On a grey photo the colour means the same whatever the photo's own colours are. The cells are drawn as they are: a
smoothed map promises an accuracy that the model's last layer does not have.
"""

from dataclasses import dataclass
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
SIDES_PX: Final = (256, 512)
"""Bounds of a heatmap's longer side: small pictures are enlarged so far, large ones reduced so far."""
FINE_CELLS: Final = 6
"""A map with fewer rows or columns points at a quarter of the picture rather than at a thing in it."""

_LINE: Final = 64
"""How white a line between cells is, of 255."""
_LEAST_CELL_PX: Final = 8
"""Smaller cells have no lines: they would hide the photo."""
_JPEG_QUALITY: Final = 85
"""Lines and edges of cells stay clean; a tenth of a PNG's processor time and bytes."""
_RUN_LENGTHS: Final = 3
"""zlib's strategy Z_RLE."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A photo and its heatmap, at the same size."""

    photo: Image.Image
    """RGB."""
    overlay: bytes
    """The same in grey with its heat on it, encoded."""


_SOFTER: Final = [48 + level * 184 // 255 for level in range(256)]
"""Grey without its ends, so that colour is seen on white and on black."""


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
    """The RGB picture in grey with its heat on it.

    Args:
        picture: RGB.
        grid: signed map, (rows, columns) over the whole picture.
        opacity: of the strongest cell, 0..1.
        against: colour the cells that spoke against the verdict too, on the same scale.
    """
    grey = picture.convert("L").point(_SOFTER)
    # a picture of its own: lines are drawn on it
    found = Image.merge("RGB", (grey, grey, grey))
    scale = float(np.abs(grid).max(initial=0.0)) if against else float(grid.max(initial=0.0))
    if scale > 0.0:
        found = _coloured(found, grid / scale, opacity, FOR)
        if against:
            found = _coloured(found, -grid / scale, opacity, AGAINST)
    return _lined(found, *grid.shape)


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
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _coloured(picture: Image.Image, share: Floats, opacity: float, colour: tuple[int, int, int]) -> Image.Image:
    levels = (share.clip(0.0, 1.0) * (255 * opacity)).round().astype(np.uint8)
    mask = Image.fromarray(levels).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", picture.size, colour), picture, mask)


def _lined(picture: Image.Image, rows: int, columns: int) -> Image.Image:
    """Thin lines between the cells, drawn on the picture itself."""
    width, height = picture.size
    if min(width / columns, height / rows) < _LEAST_CELL_PX:
        return picture
    # one line at a time: a layer over the whole picture would cost as much as its colours
    for row in range(1, rows):
        _line(picture, (0, int(row * height / rows)), (width, 1))
    for column in range(1, columns):
        _line(picture, (int(column * width / columns), 0), (1, height))
    return picture


def _line(picture: Image.Image, start: tuple[int, int], size: tuple[int, int]) -> None:
    picture.paste((255, 255, 255), start, Image.new("L", size, _LINE))
