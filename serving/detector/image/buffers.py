"""Decoders' arrays as Pillow pictures, without a copy: Pillow stores RGB as four bytes a pixel, as RGBX arrays do."""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

_BLANK: Final = Image.Image()


def as_image(pixels: npt.NDArray[np.uint8], mode: str) -> Image.Image:
    """A picture that shares the memory of `pixels`, shape (height, width, channels).

    Args:
        pixels: contiguous; four channels for all but `L`, of `RGB` the last one is read by nobody.
        mode: L, RGB, RGBA or CMYK.
    """
    size = (pixels.shape[1], pixels.shape[0])
    if mode != "RGB":
        return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)
    # `frombuffer` knows no RGB of four bytes; what it calls does
    map_buffer = Image.core.map_buffer  # type: ignore[attr-defined] # the stubs lack it
    image = _BLANK._new(map_buffer(pixels, size, "raw", 0, ("RGB", 4 * size[0], 1)))
    image.readonly = 1
    return image
