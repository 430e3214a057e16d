"""What happens to a picture on its way to a shop: compression, resizing, blur, noise, framing, at native resolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from components.artifacts.evaluation import CorruptionCell
from components.evaluate.compare import paired_accuracy
from components.evaluate.config import CorruptionName, EvaluateConfig
from components.evaluate.intervals import proportion
from components.evaluate.metrics import Judged, counted

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
FRAME_QUALITY = 95
"""JPEG quality of framed photos."""

SUBSAMPLE_SALT = 1
"""Keeps the choice of images apart from other draws of the same seed."""


@dataclass(frozen=True)
class Corruption:
    """One cell of the grid."""

    name: CorruptionName
    level: float

    @property
    def label(self) -> str:
        """The level as reports write it."""
        match self.name:
            case "jpeg" | "webp":
                return f"q{self.level:g}"
            case "resize":
                return f"{self.level:g}x and back"
            case "canvas":
                return f"{self.level:g} of a white side"
            case "letterbox":
                return f"{self.level:g} of a black height"
            case "collage":
                return f"{self.level:g} by {self.level:g}"
            case "turn":
                return f"{self.level:g} degrees"
            case "crop":
                return f"{self.level:g} of each side"
            case _:
                return f"sigma {self.level:g}"

    def apply(self, rgb: Image.Image, seed: Sequence[int]) -> Image.Image:
        """The corrupted picture, RGB; equal seeds give equal noise. Framing alone changes its size."""
        match self.name:
            case "canvas" | "letterbox" | "collage" | "turn" | "crop":
                return self._frame(rgb)
            case "jpeg":
                return _reencoded(rgb, "JPEG", int(self.level))
            case "webp":
                return _reencoded(rgb, "WEBP", int(self.level))
            case "resize":
                size = (max(1, round(rgb.width * self.level)), max(1, round(rgb.height * self.level)))
                return rgb.resize(size, Image.Resampling.BILINEAR).resize(rgb.size, Image.Resampling.BILINEAR)
            case "blur":
                return rgb.filter(ImageFilter.GaussianBlur(self.level))
            case "noise":
                pixels = np.asarray(rgb, dtype=np.float32)
                noise = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
                return Image.fromarray(
                    (pixels + noise * np.float32(255 * self.level)).round().clip(0, 255).astype(np.uint8)
                )

    def _frame(self, rgb: Image.Image) -> Image.Image:
        level = self.level
        match self.name:
            case "canvas":
                return _framed(rgb, (round(rgb.width / level), round(rgb.height / level)), (255, 255, 255))
            case "letterbox":
                return _framed(rgb, (rgb.width, round(rgb.height / level)), (0, 0, 0))
            case "collage":
                return _collage(rgb, int(level))
            case "turn":
                return rgb.transpose(_TURNS[int(level)])
            case _:
                left, top = round(rgb.width * (1 - level) / 2), round(rgb.height * (1 - level) / 2)
                return rgb.crop((left, top, rgb.width - left, rgb.height - top))


def _framed(rgb: Image.Image, size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    framed = Image.new("RGB", size, colour)
    framed.paste(rgb, ((size[0] - rgb.width) // 2, (size[1] - rgb.height) // 2))
    # nobody sends raw pixels: what compression leaves around the photo belongs to the frame
    return _reencoded(framed, "JPEG", FRAME_QUALITY)


def _collage(rgb: Image.Image, a_side: int) -> Image.Image:
    collage = Image.new("RGB", (rgb.width * a_side, rgb.height * a_side))
    for i in range(a_side * a_side):
        collage.paste(rgb, (i % a_side * rgb.width, i // a_side * rgb.height))
    return collage


def _reencoded(rgb: Image.Image, fmt: str, quality: int) -> Image.Image:
    buffer = BytesIO()
    rgb.save(buffer, fmt, quality=quality)
    return Image.open(buffer, formats=[fmt]).convert("RGB")


def grid(config: EvaluateConfig) -> tuple[Corruption, ...]:
    """All cells in the order of the configuration."""
    return tuple(Corruption(name, level) for name, levels in config.robustness.items() for level in levels)


def subsample(positive: npt.NDArray[np.bool_], config: EvaluateConfig) -> npt.NDArray[np.int64]:
    """Rows the grid is tried on, ascending: the same number of each class where the split has them."""
    n = len(positive)
    if config.robustness_images == 0 or config.robustness_images >= n:
        return np.arange(n)
    rng = np.random.default_rng([config.seed, SUBSAMPLE_SALT])
    ai, real = rng.permutation(np.flatnonzero(positive)), rng.permutation(np.flatnonzero(~positive))
    half = config.robustness_images // 2
    from_ai = min(len(ai), max(half, config.robustness_images - len(real)))
    return np.sort(np.concatenate([ai[:from_ai], real[: config.robustness_images - from_ai]]))


def note(rows: int, n: int) -> str:
    """How many images the grid stands on, in words."""
    if rows == n:
        return f"Every one of the {n:,} test images went through every corruption."
    return f"The corruptions were tried on a fixed subsample of {rows:,} of the {n:,} test images, balanced by class."


def cell(
    name: str, level: str, clean: Judged, corrupted: Judged, champion: Judged | None, config: EvaluateConfig
) -> CorruptionCell:
    """Figures of one cell.

    Args:
        name: what was done.
        level: how much of it, as reports write it.
        clean: the candidate on the same images untouched.
        corrupted: the candidate on the corrupted images.
        champion: the champion on the corrupted images.
        config: draws and seed of the paired intervals.
    """
    figures = counted(corrupted)
    n = len(clean.positive)
    return CorruptionCell(
        corruption=name,
        level=level,
        n=n,
        accuracy=figures["accuracy"],
        fpr=figures.get("fpr"),
        flip_rate=float(np.mean(clean.predicted != corrupted.predicted)),
        accuracy_change=paired_accuracy(corrupted, clean, config),
        champion_accuracy=None if champion is None else proportion(champion.right, champion.units),
        champion_difference=None if champion is None else paired_accuracy(corrupted, champion, config),
    )
