"""RGB image to model input: the one resize that training, evaluation and serving share."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.detector.framing import Box, content_box

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
    "trim": "uniform borders",
}
"""Written into every manifest; a bundle made under another recipe is refused, except that older ones do not trim."""

WITHOUT_TRIM: Final = {name: value for name, value in PREPROCESSING.items() if name != "trim"}
"""What bundles did before framing was looked at; they are served as they were trained."""


def trims(recipe: Mapping[str, str | float]) -> bool:
    """Whether a manifest's preprocessing takes uniform borders off."""
    return "trim" in recipe


def to_input(rgb: Image.Image, input_px: int, trim: bool = True) -> Pixels:
    """Resize what stands inside an RGB image's uniform borders to the model's square input.

    All of the photo is kept (both sides scaled independently), so a heatmap covers all of it; padding would add an
    edge the model could read, and a canvas of the sender's own does. Returns uint8 of shape (input_px, input_px, 3);
    the network normalises inside its graph.

    Args:
        rgb: the picture.
        input_px: side of the input in pixels.
        trim: False for models trained before borders were taken off.
    """
    return resized(rgb, content_box(rgb) if trim else None, input_px)


def resized(rgb: Image.Image, box: Box | None, input_px: int) -> Pixels:
    """`to_input` for who looked for the borders already; `box` as `content_box` found it."""
    if box is not None:
        # cut off first: a resize told of the box alone lets the border into the outermost pixels
        rgb = rgb.crop(box)
    if rgb.size != (input_px, input_px):
        rgb = rgb.resize((input_px, input_px), Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    return np.asarray(rgb, dtype=np.uint8)


def as_batch(images: Sequence[Pixels]) -> Pixels:
    """Model inputs of shape (input_px, input_px, 3) as one batch (n, input_px, input_px, 3); a single one as a view."""
    return images[0][None] if len(images) == 1 else np.stack(images)
