"""Training augmentation at native resolution: what shops and messengers do to a photo before we see it.

JPEG, blur and noise after the upscale would teach the network the upscaler's artefacts; here they act on the pixels
as they came. Everything runs in NumPy and Pillow on uint8, so that loader threads never compete for torch's threads.
"""

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.train.config import AugmentConfig
from serving.detector.preprocess import Pixels

_KERNELS: Final = (
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
_BLUR_REFERENCE_PX: Final = 32
_BLUR_GROWTH: Final = 0.68
"""Exponent between the two published recipes: sigma up to 0.8 px on 32 px images, up to 3 px on 224 px ones."""
_TURNS: Final = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_SUBSAMPLINGS: Final = (0, 2)
"""Pillow's codes of 4:4:4 and 4:2:0."""


def augment(batch: Pixels, rng: np.random.Generator, config: AugmentConfig) -> Pixels:
    """Change a batch as its images' way through the world would.

    Args:
        batch: uint8 (n, height, width, 3); never written to.
        rng: decides everything; the same state gives the same pixels.
        config: how often and how strongly.

    Returns:
        uint8 of the batch's shape.
    """
    images = batch.copy()
    if not config.enabled:
        return images
    n = len(images)
    flipped = rng.random(n) < config.flip_p
    images[flipped] = images[flipped, :, ::-1]
    _frame(images, rng, config)
    if config.brightness > 0:
        _brighten(images, rng, config.brightness)
    resampled, blurred, noisy, compressed = (np.flatnonzero(row) for row in _corruptions(n, rng, config))
    for i in resampled:
        images[i] = _resample(images[i], rng, config.resample_min, config.resample_max)
    if len(blurred):
        growth = (min(images.shape[1:3]) / _BLUR_REFERENCE_PX) ** _BLUR_GROWTH
        images[blurred] = blur(images[blurred], rng.random(len(blurred)) * config.blur_sigma_max * growth)
    if len(noisy):
        images[noisy] = _noise(images[noisy], rng, config.noise_sigma_max)
    for i in compressed:
        quality = int(rng.integers(config.jpeg_quality_min, config.jpeg_quality_max + 1))
        images[i] = recompress(images[i], quality, _SUBSAMPLINGS[int(rng.integers(2))])
    return images


def recompress(image: Pixels, quality: int, subsampling: int) -> Pixels:
    """One uint8 (height, width, 3) image after JPEG at libjpeg `quality`, with Pillow's subsampling code."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer).convert("RGB"))


def blur(images: Pixels, sigmas_px: npt.NDArray[np.floating]) -> Pixels:
    """Gaussian blur with one sigma an image: uint8 (n, height, width, 3) and (n,) pixels; edges are repeated."""
    radius = max(1, int(np.ceil(3.0 * float(sigmas_px.max(initial=0.0)))))
    taps = np.arange(-radius, radius + 1, dtype=np.float32)
    # sigma 0 means the image itself; the floor keeps the division defined and the kernel a single tap
    kernels = np.exp(-0.5 * (taps / np.maximum(sigmas_px, 1e-3)[:, None].astype(np.float32)) ** 2)
    kernels /= kernels.sum(axis=1, keepdims=True)
    result = images.astype(np.float32)
    for axis in (1, 2):
        widths = [(0, 0)] * 4
        widths[axis] = (radius, radius)
        padded = np.pad(result, widths, mode="edge")
        side = result.shape[axis]
        result = np.zeros_like(result)
        for tap in range(2 * radius + 1):
            window = padded[:, tap : tap + side] if axis == 1 else padded[:, :, tap : tap + side]
            result += kernels[:, tap, None, None, None] * window
    return np.rint(result).clip(0, 255).astype(np.uint8)


def _frame(images: Pixels, rng: np.random.Generator, config: AugmentConfig) -> None:
    """Turn, crop, repeat and shrink photos in their own arrays, as screenshots, galleries and editors do."""
    n = len(images)
    quarters = np.where(rng.random(n) < config.turn_p, rng.integers(1, 4, n), 0)
    # one draw a photo: it is cropped, or repeated, or set on a canvas
    bounds = np.cumsum([config.crop_p, config.collage_p, config.canvas_p])
    ways = np.searchsorted(bounds, rng.random(n), side="right")
    for i in np.flatnonzero((quarters > 0) | (ways < len(bounds))).tolist():
        image = Image.fromarray(images[i])
        if quarters[i]:
            image = image.transpose(_TURNS[quarters[i] - 1]).resize(image.size, Image.Resampling.BILINEAR)
        if ways[i] < len(bounds):
            image = (_crop, _collage, _canvas)[ways[i]](image, rng, config)
        images[i] = np.asarray(image)


def _crop(image: Image.Image, rng: np.random.Generator, config: AugmentConfig) -> Image.Image:
    width, height = (side * float(rng.uniform(config.crop_min, 1.0)) for side in image.size)
    left, top = float(rng.random()) * (image.width - width), float(rng.random()) * (image.height - height)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def _collage(image: Image.Image, rng: np.random.Generator, config: AugmentConfig) -> Image.Image:
    del rng, config
    tile = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BILINEAR)
    collage = Image.new("RGB", image.size)
    for left in (0, image.width - tile.width):
        for top in (0, image.height - tile.height):
            collage.paste(tile, (left, top))
    return collage


def _canvas(image: Image.Image, rng: np.random.Generator, config: AugmentConfig) -> Image.Image:
    share = float(rng.uniform(config.canvas_min, 1.0))
    photo = image.resize((max(1, round(image.width * share)), max(1, round(image.height * share))), _KERNELS[2])
    red, green, blue = rng.integers(0, 256, 3).tolist()
    canvas = Image.new("RGB", image.size, (red, green, blue))
    canvas.paste(
        photo,
        (int(rng.integers(image.width - photo.width + 1)), int(rng.integers(image.height - photo.height + 1))),
    )
    return canvas


def _corruptions(n: int, rng: np.random.Generator, config: AugmentConfig) -> npt.NDArray[np.bool_]:
    """Which images are resampled, blurred, made noisy and compressed: bool (4, n), at most `most_corruptions` each."""
    shares = np.array([config.resample_p, config.blur_p, config.noise_p, config.jpeg_p])
    chosen = rng.random((len(shares), n)) < shares[:, None]
    # a random order of each image's corruptions, those it does not get behind all others
    order = np.argsort(np.where(chosen, rng.random(chosen.shape), 2.0), axis=0)
    place = np.argsort(order, axis=0)
    return chosen & (place < config.most_corruptions)


def _brighten(images: Pixels, rng: np.random.Generator, strength: float) -> None:
    n = len(images)
    gain = rng.uniform(1 - strength, 1 + strength, n)
    offset = rng.uniform(-strength, strength, n) * 64
    levels = np.arange(256)
    # one lookup table an image: contrast around mid grey, then brightness
    tables = ((levels[None] - 128) * gain[:, None] + 128 + offset[:, None]).round().clip(0, 255).astype(np.uint8)
    images[:] = tables[np.arange(n)[:, None, None, None], images]


def _resample(image: Pixels, rng: np.random.Generator, smallest: float, largest: float) -> Pixels:
    height, width = image.shape[:2]
    scale = float(rng.uniform(smallest, largest))
    there, back = (_KERNELS[int(k)] for k in rng.integers(len(_KERNELS), size=2))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, there).resize((width, height), back))


def _noise(images: Pixels, rng: np.random.Generator, sigma_max: float) -> Pixels:
    sigmas = (rng.random(len(images)) * sigma_max * 255).astype(np.float32)
    noise = rng.standard_normal(images.shape, dtype=np.float32) * sigmas[:, None, None, None]
    return np.rint(images + noise).clip(0, 255).astype(np.uint8)
