"""Generated pictures as sharp as the photographs beside them: sharpness must not tell how a picture was made."""

from typing import Final

import numpy as np
import numpy.typing as npt
from packages import Pixels
from PIL import Image, ImageFilter

RADII_PX: Final = (0.5, 1.0, 2.0, 4.0)
"""Blurs between which the bands lie whose strength is brought to that of the photograph."""
GAINS: Final = (0.6, 4.0)


def equalised(generated: Pixels, photograph: Pixels) -> Pixels:
    """The generated picture with the photograph's strength in each of four bands of fine detail, (h, w, 3)."""
    bands, rest = _bands(generated)
    wanted, _ = _bands(photograph)
    for band, like in zip(bands, wanted, strict=True):
        gain = np.clip(np.sqrt(np.square(like).mean() + 0.01) / np.sqrt(np.square(band).mean() + 0.01), *GAINS)
        rest = rest + gain * band
    return np.clip(rest + 0.5, 0, 255).astype(np.uint8)


def _bands(pixels: Pixels) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    image, bands = Image.fromarray(pixels), []
    sharper = np.asarray(image, np.float32)
    for radius in RADII_PX:
        softer = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
        bands.append(sharper - softer)
        sharper = softer
    return bands, sharper
