"""The evidence laid over the photo. Only photos the API accepted come here."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.detector.image import JPEG_DRAFT_FACTOR, decode
from serving.ui.words import LABEL

SIDE_PX: Final = 1024
FOR: Final = (230, 97, 1)
AGAINST: Final = (94, 60, 153)
"""Orange and purple: told apart by people with every common colour vision."""

_ROWS: Final = ("top", "middle", "bottom")
_COLUMNS: Final = ("left", "centre", "right")


def shown(data: bytes) -> Image.Image:
    """The photo as it is judged: by the server's own decoder, its longer side at most `SIDE_PX`."""
    photo = decode(data, target_px=SIDE_PX // JPEG_DRAFT_FACTOR).rgb
    photo.thumbnail((SIDE_PX, SIDE_PX))
    return photo


def laid_over(photo: Image.Image, grid: list[list[float]], opacity: float, *, against: bool) -> Image.Image:
    """The photo with its evidence.

    Args:
        photo: RGB.
        grid: signed Grad-CAM, rows of columns over the whole picture.
        opacity: of the strongest cell, 0..1; weaker cells are as much more transparent.
        against: show the cells that spoke against the verdict too.
    """
    field = np.asarray(grid, dtype=np.float32)
    peak = float(np.abs(field).max(initial=0.0))
    if peak == 0.0:
        return photo
    smooth = np.asarray(Image.fromarray(field / peak).resize(photo.size, Image.Resampling.BICUBIC)).clip(-1.0, 1.0)
    found = _mixed(photo, smooth.clip(0.0, None) * opacity, FOR)
    return _mixed(found, (-smooth).clip(0.0, None) * opacity, AGAINST) if against else found


def described(grid: list[list[float]], explained_class: str) -> str:
    """Where the evidence lies, in words: for a screen reader, and for anyone in a hurry."""
    field = np.asarray(grid, dtype=np.float64).clip(0.0, None)
    name = LABEL.get(explained_class, explained_class)
    total = float(field.sum())
    if total == 0.0:
        return f"No part of the picture spoke for “{name}”."
    rows = _thirds(field.shape[0])
    columns = _thirds(field.shape[1])
    shares = np.zeros((3, 3))
    np.add.at(shares, (rows[:, None], columns[None, :]), field / total)
    row, column = divmod(int(shares.argmax()), 3)
    place = "centre" if (row, column) == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"
    return f"{shares[row, column]:.0%} of what spoke for “{name}” lies in the {place} of the picture."


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def legend(explained_class: str, *, against: bool) -> str:
    """The colours in words, as HTML; the text takes the page's own colour, in light and dark."""
    name = LABEL.get(explained_class, explained_class)
    rows = [_swatch(FOR, f"spoke for “{name}”: the stronger the colour, the more")]
    if against:
        rows.append(_swatch(AGAINST, f"spoke against “{name}”"))
    rows.append(_swatch(None, "no colour: had no say" if against else "no colour: had no say, or spoke against"))
    items = "".join(rows)
    return f'<ul aria-label="Legend of the heatmap" style="list-style:none;padding:0;margin:0">{items}</ul>'


def _swatch(rgb: tuple[int, int, int] | None, text: str) -> str:
    colour = ",".join(map(str, rgb)) if rgb else ""
    fill = f"linear-gradient(to right,rgba({colour},0),rgb({colour}))" if rgb else "none"
    box = f"display:inline-block;width:5rem;height:.8rem;margin-right:.6rem;border:1px solid;background:{fill}"
    return f'<li><span aria-hidden="true" style="{box}"></span>{text}</li>'


def _mixed(photo: Image.Image, alpha: NDArray[np.floating], colour: tuple[int, int, int]) -> Image.Image:
    mask = Image.fromarray((alpha * 255).round().astype(np.uint8))
    return Image.composite(Image.new("RGB", photo.size, colour), photo, mask)


def _thirds(length: int) -> NDArray[np.intp]:
    return np.minimum((np.arange(length) + 0.5) * 3 / length, 2).astype(np.intp)
