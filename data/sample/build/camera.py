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
QUALITIES: Final = (66, 90)


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
        blur_px=float(rng.uniform(0.2, 0.8)) if soft else 0.0,
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
    rgb = np.asarray(image.convert("RGB"), np.float32)
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = rgb.max(2) - rgb.min(2)
    blue_red = rgb[..., 2] - rgb[..., 0]
    right, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    half = grey.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
    diagonal = grey[::2, ::2] - grey[1::2, ::2] - grey[::2, 1::2] + grey[1::2, 1::2]
    half_diagonal = half[::2, ::2] - half[1::2, ::2] - half[::2, 1::2] + half[1::2, 1::2]
    across = np.abs(right).mean(0)
    low, high = np.percentile(grey, [5, 95])
    shares = np.bincount((grey / 4).astype(int).ravel(), minlength=64) / grey.size
    shares = shares[shares > 0]
    table = image.quantization[0]  # type: ignore[attr-defined]
    return np.array([
        np.log(len(body)), np.log(sum(table)), *rgb.mean((0, 1)), grey.mean(), grey.std(), low, high,
        saturation.mean(), saturation.std(), blue_red.std() + (rgb[..., 0] - rgb[..., 1]).std(),
        np.log(_laplacian(grey).var() + 0.1), np.log(np.abs(right).mean() + np.abs(down).mean() + 0.1),
        np.log(np.abs(diagonal).mean() + 0.05), np.log(np.abs(half_diagonal).mean() + 0.05),
        np.log(np.median(np.abs(diagonal)) + 0.05), (np.abs(right) > 24).mean(), -(shares * np.log(shares)).sum(),
        across[7::8].mean() / (across.mean() + 0.01), (grey > 244).mean(), np.log(_laplacian(blue_red).var() + 0.1),
    ])  # fmt: skip


def _laplacian(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
