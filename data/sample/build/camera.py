"""One camera for both classes: what happens to a picture between a lens and a shop's web page."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from packages import Pixels
from PIL import Image, ImageFilter
from scenes import SIDE

KERNELS: Final = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
QUALITIES: Final = (70, 92)


@dataclass(frozen=True, slots=True)
class Setting:
    """One draw of the camera."""

    bottleneck_px: int
    """The picture passes through this side on its way; 192 leaves it."""
    down: Image.Resampling
    up: Image.Resampling
    blur_px: float
    sharpen: int
    """Per cent of an unsharp mask of 1 px."""
    noise: float
    """Standard deviation in levels of 255."""
    gain: float
    quality: int
    seed: int


def draw(rng: np.random.Generator) -> Setting:
    """A setting; the same chances for real and generated pictures."""
    soft, hard = rng.random() < 0.35, rng.random() < 0.35
    return Setting(
        bottleneck_px=int(rng.integers(84, 180)) if rng.random() < 0.5 else SIDE,
        down=KERNELS[rng.integers(3)],
        up=KERNELS[rng.integers(3)],
        blur_px=float(rng.uniform(0.2, 1.0)) if soft else 0.0,
        sharpen=int(rng.uniform(20, 110)) if hard else 0,
        noise=float(rng.uniform(0, 2.0)),
        gain=float(rng.uniform(0.93, 1.05)),
        quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)),
        seed=int(rng.integers(2**31)),
    )


def shoot(picture: Pixels, how: Setting) -> bytes:
    """The picture as a JPEG of 192 px, 4:2:0, without metadata."""
    image = Image.fromarray(picture)
    if how.bottleneck_px < SIDE:
        image = image.resize((how.bottleneck_px, how.bottleneck_px), how.down).resize((SIDE, SIDE), how.up)
    if how.blur_px:
        image = image.filter(ImageFilter.GaussianBlur(how.blur_px))
    if how.sharpen:
        image = image.filter(ImageFilter.UnsharpMask(1.0, how.sharpen, 0))
    levels = np.asarray(image, np.float32) * how.gain
    levels = levels + np.random.default_rng(how.seed).normal(0, how.noise, (SIDE, SIDE, 1)).astype(np.float32)
    body = io.BytesIO()
    Image.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8)).save(
        body, "JPEG", quality=how.quality, subsampling="4:2:0", optimize=True
    )
    return body.getvalue()


FEATURES: Final = (
    "bytes", "JPEG quality", "mean red", "mean green", "mean blue", "brightness", "contrast", "darkest twentieth",
    "lightest twentieth", "saturation", "spread of saturation", "colourfulness", "Laplacian", "gradient",
    "fine detail (top octave)", "middle detail (second octave)", "noise floor", "strong edges", "entropy", "blockiness",
    "share of near white", "Laplacian of colour",
)  # fmt: skip
"""What says nothing about how a picture was made, but might give its class away if one were careless."""


def features(body: bytes) -> npt.NDArray[np.float64]:
    """The numbers named by FEATURES of one JPEG."""
    image = Image.open(io.BytesIO(body))
    # by planes: sums over the last of three axes cost ten times as much
    red, green, blue = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1)).astype(np.float32)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    blue_red = blue - red
    right, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    half = _halved(grey)
    diagonal, half_diagonal = np.abs(_diagonal(grey)), np.abs(_diagonal(half))
    across = right.mean(0)
    shares = np.bincount((grey.ravel() / 4).astype(np.int64), minlength=64) / grey.size
    low, high = (np.searchsorted(shares.cumsum(), at) * 4.0 for at in (0.05, 0.95))
    shares = shares[shares > 0]
    table = image.quantization[0]  # type: ignore[attr-defined] # a JPEG's, which Pillow's stubs lack
    return np.array([
        np.log(len(body)), np.log(sum(table)), red.mean(), green.mean(), blue.mean(), grey.mean(), grey.std(), low,
        high, saturation.mean(), saturation.std(), blue_red.std() + (red - green).std(),
        np.log(_laplacian(grey).var() + 0.1), np.log(across.mean() + down.mean() + 0.1),
        np.log(diagonal.mean() + 0.05), np.log(half_diagonal.mean() + 0.05),
        np.log(np.median(diagonal) + 0.05), (right > 24).mean(), -(shares * np.log(shares)).sum(),
        across[7::8].mean() / (across.mean() + 0.01), (grey > 244).mean(), np.log(_laplacian(blue_red).var() + 0.1),
    ])  # fmt: skip


def _halved(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def _diagonal(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return x[::2, ::2] - x[1::2, ::2] - x[::2, 1::2] + x[1::2, 1::2]


def _laplacian(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
