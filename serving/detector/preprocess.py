"""RGB image to model input: the one preparation that training, evaluation and serving share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.detector.framing import Box, content_box
from serving.detector.views import COUNTS, crop_boxes

Pixels = npt.NDArray[np.uint8]
Recipe = dict[str, str | float]

REDUCING_GAP: Final = 2.0
"""Large images shrink by an integer box filter first, never below twice the input (Pillow's `reducing_gap`)."""

PREPROCESSING: Final[Recipe] = {
    "shape": "squash",
    "resample": "bilinear",
    "antialias": "true",
    "reducing_gap": REDUCING_GAP,
    "jpeg_draft_factor": 4.0,
    "dtype": "uint8",
    "trim": "uniform borders",
}
"""Written into every manifest; a bundle made under another recipe is refused, except that older ones do not trim and
some take crops (`Preparation.recipe`)."""

WITHOUT_TRIM: Final = {name: value for name, value in PREPROCESSING.items() if name != "trim"}
"""What bundles did before framing was looked at; they are served as they were trained."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a model takes a picture; equal ones make equal inputs."""

    input_px: int
    """Side of each input in pixels."""
    trim: bool = True
    """Take uniform borders off; False for models trained before that was done."""
    crops: int = 0
    """So many views at native resolution (`views.COUNTS`), whose mean logit counts; 0: the whole picture, resized."""

    @classmethod
    def of(cls, recipe: Mapping[str, str | float], input_px: int) -> "Preparation":
        """The preparation that a manifest's `preprocessing` tells.

        Raises:
            ValueError: this code does not know the recipe.
        """
        crops = recipe.get("crops", 0)
        found = cls(input_px, "trim" in recipe, int(crops) if crops in COUNTS else 0)
        if found.recipe != recipe:
            raise ValueError(f"preprocessing {dict(recipe)} is not known, this code does {PREPROCESSING}")
        return found

    @property
    def recipe(self) -> Recipe:
        """As a manifest tells it."""
        if not self.crops:
            return PREPROCESSING if self.trim else WITHOUT_TRIM
        # a JPEG decoded at a reduced scale would be no native view
        kept = {name: value for name, value in PREPROCESSING.items() if name != "jpeg_draft_factor"}
        return {**kept, "shape": "native crops", "crops": float(self.crops)}

    @property
    def views(self) -> int:
        """Inputs that one picture makes."""
        return self.crops or 1

    @property
    def decode_px(self) -> int | None:
        """The side that decoding may shrink a picture towards; None: not at all."""
        return None if self.crops else self.input_px

    def inputs(self, rgb: Image.Image) -> Pixels:
        """The model's inputs of a picture: uint8 (views, input_px, input_px, 3)."""
        return self.cut(rgb, self.boxes(rgb))

    def cut(self, rgb: Image.Image, boxes: Sequence[Box | None]) -> Pixels:
        """`inputs` for who has the picture's `boxes` already."""
        return as_batch([resized(rgb, box, self.input_px) for box in boxes])

    def boxes(self, rgb: Image.Image) -> list[Box | None]:
        """The part of the picture that each input shows; None: all of it."""
        inner = content_box(rgb) if self.trim else None
        if not self.crops:
            return [inner]
        left, top, right, bottom = inner or (0, 0, *rgb.size)
        found = crop_boxes((right - left, bottom - top), self.input_px, self.crops)
        return [(left + a, top + b, left + c, top + d) for a, b, c, d in found]


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
    """Arrays of one shape as one array of them, (n, ...); a single one as a view."""
    return images[0][None] if len(images) == 1 else np.stack(images)
