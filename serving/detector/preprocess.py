"""RGB image to model input: the one resize that training, evaluation and serving share."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

REDUCING_GAP: Final = 2.0
"""Large images shrink by an integer box filter first, never below twice the input (Pillow's `reducing_gap`)."""

PREPROCESSING: Final[dict[str, str | float]] = {
    "shape": "squash",
    "resample": "bilinear",
    "antialias": "true",
    "reducing_gap": REDUCING_GAP,
    "jpeg_draft_factor": 4.0,
    "dtype": "uint8",
}
"""Written into every manifest; a bundle made under another recipe is refused."""


def to_input(rgb: Image.Image, input_px: int) -> Pixels:
    """Resize an RGB image to the model's square input.

    The whole picture is kept (both sides scaled independently), so a heatmap covers all of it and no border is
    lost; padding would add an edge the model could read. Returns uint8 of shape (input_px, input_px, 3); the
    network normalises inside its graph.
    """
    if rgb.size != (input_px, input_px):
        rgb = rgb.resize((input_px, input_px), Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    return np.asarray(rgb, dtype=np.uint8)


def as_batch(images: Sequence[Pixels]) -> Pixels:
    """Model inputs of shape (input_px, input_px, 3) as one batch (n, input_px, input_px, 3); a single one as a view."""
    return images[0][None] if len(images) == 1 else np.stack(images)
