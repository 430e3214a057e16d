"""The heatmap on the page, drawn as everywhere else. Only photos the API accepted come here."""

import base64
import io
from typing import Final

import numpy as np
from PIL import Image

from serving.cases.words import LABELS
from serving.detector import heatmap
from serving.detector.heatmap import AGAINST, FOR
from serving.detector.image import JPEG_DRAFT_FACTOR, decode

SIDES_PX: Final = (256, 1024)
THUMBNAIL_PX: Final = 96


def shown(data: bytes) -> Image.Image:
    """The photo as it is judged: by the server's own decoder, its longer side within `SIDES_PX`."""
    return heatmap.shown(decode(data, target_px=SIDES_PX[1] // JPEG_DRAFT_FACTOR).rgb, sides_px=SIDES_PX)


def thumbnail(data: bytes) -> str:
    """The photo as a small JPEG in a data address; its longer side is `THUMBNAIL_PX`."""
    photo = decode(data, target_px=THUMBNAIL_PX // JPEG_DRAFT_FACTOR).rgb
    photo.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def laid_over(
    photo: Image.Image, grid: list[list[float]], opacity: float = heatmap.OPACITY, *, against: bool = False
) -> Image.Image:
    """The photo in grey with its evidence; the arguments are those of `serving.detector.heatmap.overlay`."""
    return heatmap.overlay(photo, np.asarray(grid, dtype=np.float32), opacity, against=against)


def is_fine(grid: list[list[float]]) -> bool:
    """Whether the map has cells enough to point at a thing in the picture."""
    return heatmap.is_fine(np.asarray(grid, dtype=np.float32))


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    return heatmap.encode_png(image)


def legend(explained_class: str, *, against: bool) -> str:
    """The colours in words, as HTML; the text takes the page's own colour, in light and dark."""
    name = LABELS.get(explained_class, explained_class)
    rows = [_swatch(FOR, f"spoke for “{name}”: the stronger the colour, the more")]
    if against:
        rows.append(_swatch(AGAINST, f"spoke against “{name}”"))
    rows.append(_swatch(None, "grey: had no say" if against else "grey: had no say, or spoke against"))
    items = "".join(rows)
    return f'<ul aria-label="Legend of the heatmap" style="list-style:none;padding:0;margin:0">{items}</ul>'


def _swatch(rgb: tuple[int, int, int] | None, text: str) -> str:
    colour = ",".join(map(str, rgb)) if rgb else "128,128,128"
    fill = f"linear-gradient(to right,rgba({colour},{0 if rgb else 0.5}),rgba({colour},{1 if rgb else 0.5}))"
    box = f"display:inline-block;width:4rem;height:.8rem;margin-right:.6rem;border:1px solid;background:{fill}"
    return f'<li><span aria-hidden="true" style="{box}"></span>{text}</li>'
