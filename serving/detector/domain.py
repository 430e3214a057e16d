"""Whether a photo is of the kind the model was trained on: a score says nothing of others, however sure it looks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from serving.detector.image import ImageInfo
from serving.detector.preprocess import Pixels
from serving.platform.frozen import Frozen

SignalName = Literal["min_side_px", "detail", "jpeg_quality"]

OCTAVES: Final = 0.5
"""A smaller side may lie so many doublings beyond those of the held-out photos."""
DETAIL_TAIL: Final = 0.0025
"""Share of held-out photos left out at each end of the detail's range: with the other signals below 1 % in all."""
_FEWEST: Final = 50
"""Photos it takes to know a range of details."""


class TrainedDomain(Frozen):
    """Ranges of the held-out photos, from the bundle's reference; stands in the manifest."""

    min_side_px: tuple[float, float]
    detail: tuple[float, float] | None = None
    """Of `detail`; None where it was not measured."""
    jpeg_quality: float | None = None
    """Lowest quality seen or trained for; None where no JPEG was."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured property beside its trained range; a bound is None where the range is open."""

    name: SignalName
    value: float
    low: float | None
    high: float | None

    @property
    def inside(self) -> bool:
        """Whether the value lies in the range, bounds included."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


@dataclass(frozen=True, slots=True)
class Domain:
    """What the signals say together; without signals (an older bundle) nothing is known to be outside."""

    inside: bool
    signals: tuple[Signal, ...]

    @property
    def outside_by(self) -> tuple[Signal, ...]:
        """The signals that put the photo outside."""
        return tuple(signal for signal in self.signals if not signal.inside)


UNKNOWN: Final = Domain(True, ())


def detail(pixels: Pixels) -> float | None:
    """Mean step of brightness between neighbours over that between every second pixel: low where a photo was enlarged.

    Args:
        pixels: the model's inputs, uint8 (views, side, side, 3).

    Returns:
        The ratio, about 0.5 for smooth and 1 for unrelated pixels; None for a picture without any step.
    """
    # a quarter of the lines each way: the mean needs no more, and this runs for every request
    side = pixels.shape[1]
    rows, columns = _luma(pixels[:, ::4]).reshape(-1, side), _luma(pixels[:, :, ::4]).swapaxes(1, 2).reshape(-1, side)
    near = sum(int(np.abs(lines[:, 1:] - lines[:, :-1]).sum()) / (lines.shape[1] - 1) for lines in (rows, columns))
    far = sum(int(np.abs(lines[:, 2:] - lines[:, :-2]).sum()) / (lines.shape[1] - 2) for lines in (rows, columns))
    return near / far if far else None


def measure(domain: TrainedDomain | None, info: ImageInfo, pixels: Pixels) -> Domain:
    """Set one photo beside the trained ranges.

    Args:
        domain: the bundle's; None for bundles older than this.
        info: of the file.
        pixels: what the model sees of it.
    """
    if domain is None:
        return UNKNOWN
    signals = [Signal("min_side_px", float(min(info.width, info.height)), *domain.min_side_px)]
    if domain.detail is not None and (found := detail(pixels)) is not None:
        signals.append(Signal("detail", round(found, 4), *domain.detail))
    if domain.jpeg_quality is not None and info.jpeg_quality is not None:
        signals.append(Signal("jpeg_quality", round(info.jpeg_quality, 1), domain.jpeg_quality, None))
    return Domain(all(signal.inside for signal in signals), tuple(signals))


def trained_domain(
    log2_min_sides: Sequence[float],
    jpeg_qualities: Sequence[float],
    details: Sequence[float | None],
    lowest_quality: float | None,
) -> TrainedDomain:
    """The ranges of held-out photos.

    Args:
        log2_min_sides: of the photos' smaller sides in pixels.
        jpeg_qualities: of those that are JPEGs.
        details: of their model inputs.
        lowest_quality: JPEG quality that training compressed photos to; None: it did not.
    """
    known = sorted(value for value in details if value is not None)
    lowest = min(jpeg_qualities, default=None)
    return TrainedDomain(
        min_side_px=(round(2 ** (min(log2_min_sides) - OCTAVES), 1), round(2 ** (max(log2_min_sides) + OCTAVES), 1)),
        detail=_range(known) if len(known) >= _FEWEST else None,
        jpeg_quality=None if lowest is None else round(min(lowest, lowest_quality or math.inf), 1),
    )


def _range(values: list[float]) -> tuple[float, float]:
    """Split-conformal range: a new photo of the same kind falls below or above it with `DETAIL_TAIL` each."""
    rank = max(0, math.floor(DETAIL_TAIL * (len(values) + 1)) - 1)
    # outwards by one digit of what is kept and answered, so that rounding puts nothing outside
    return math.floor(values[rank] * 1e4) / 1e4, math.ceil(values[-1 - rank] * 1e4) / 1e4


def _luma(pixels: Pixels) -> "np.typing.NDArray[np.int16]":
    # channel by channel and in place: half the time of the whole picture widened at once
    luma = pixels[..., 0].astype(np.int16)
    green = pixels[..., 1].astype(np.int16)
    luma *= 2
    green *= 5
    luma += green
    luma += pixels[..., 2]
    luma >>= 3
    return luma
