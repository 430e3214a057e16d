"""What is measured of every image: one full decode each, everything else vectorised over the batch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from serving.detector.image import ImageInfo, decode
from serving.platform.errors import ImageRefusedError
from serving.provenance.inspect import inspect as read

TARGET_PX: Final = 224
"""The side of a model's input, so that a large JPEG is judged at the scale at which the server judges it."""
GREY_PX: Final = 32
THUMBNAIL_PX: Final = 16
HASH_PX: Final = 8

SCHEMA: Final = pa.schema(
    [
        ("problem", pa.string()),
        ("pixel_sha256", pa.string()),
        ("hash", pa.uint64()),
        ("mirrored_hash", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("encoded_bytes", pa.int64()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("declared", pa.string()),
        ("luma_quality", pa.float32()),
        ("chroma_quality", pa.float32()),
        ("exif", pa.bool_()),
        ("icc", pa.bool_()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
        ("sharpness", pa.float32()),
    ]
)
"""One row an image. `problem` is null where the image decodes; all else is null where it does not, but `declared`: what
the file says of its own making (`serving.provenance.record.Declared`, `none` of most). Qualities are estimated libjpeg
qualities; brightness, contrast (standard deviation) and sharpness (mean absolute Laplacian) are levels of 255 of the
32x32 grey image."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """Measurements of one batch of n images."""

    table: pa.RecordBatch
    thumbnails: npt.NDArray[np.uint8]
    """Shape (n, 16, 16), grey; zeros where the image does not decode."""


def inspect(data: Sequence[bytes]) -> Inspection:
    """Decode and measure encoded images; a damaged one becomes a `problem`, never an exception."""
    n = len(data)
    problems: list[str | None] = [None] * n
    found: list[ImageInfo | None] = [None] * n
    digests: list[str | None] = [None] * n
    grey = np.zeros((n, GREY_PX, GREY_PX), np.uint8)
    colour = np.zeros((n, GREY_PX, GREY_PX, 3), np.uint8)
    small = np.zeros(n, bool)
    for i, encoded in enumerate(data):
        try:
            image = decode(encoded, target_px=TARGET_PX)
        except ImageRefusedError as error:
            problems[i] = str(error)
            continue
        pixels = image.rgb.tobytes()
        digests[i] = hashlib.sha256(pixels).hexdigest()
        found[i] = image.info
        if image.rgb.size == (GREY_PX, GREY_PX):
            colour[i] = np.frombuffer(pixels, np.uint8).reshape(GREY_PX, GREY_PX, 3)
            small[i] = True
        else:
            grey[i] = np.asarray(_grey(image.rgb))
    grey[small] = _luma(colour[small])
    hashes, mirrored = perceptual_hashes(grey)
    ok = np.array([problem is None for problem in problems], bool)
    quality = {
        "brightness": grey.mean((1, 2), dtype=np.float32),
        "contrast": grey.std((1, 2), dtype=np.float32),
        "sharpness": _sharpness(grey),
    }
    columns: dict[str, pa.Array] = {
        "problem": pa.array(problems, pa.string()),
        "pixel_sha256": pa.array(digests, pa.string()),
        "hash": pa.array(hashes, mask=~ok),
        "mirrored_hash": pa.array(mirrored, mask=~ok),
        "encoded_bytes": pa.array([len(encoded) for encoded in data], pa.int64()),
        "width": pa.array([info and info.width for info in found], pa.int32()),
        "height": pa.array([info and info.height for info in found], pa.int32()),
        "format": pa.array([info and info.format for info in found], pa.string()),
        "mode": pa.array([info and info.mode for info in found], pa.string()),
        "declared": pa.array([read(encoded).declared for encoded in data], pa.string()),
        "luma_quality": pa.array([info and info.jpeg_quality for info in found], pa.float32()),
        "chroma_quality": pa.array([info and info.jpeg_chroma_quality for info in found], pa.float32()),
        "exif": pa.array([info and info.has_exif for info in found], pa.bool_()),
        "icc": pa.array([info and info.has_icc for info in found], pa.bool_()),
        **{name: pa.array(values, mask=~ok) for name, values in quality.items()},
    }
    table = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    thumbnails = grey.reshape(n, THUMBNAIL_PX, 2, THUMBNAIL_PX, 2).mean((2, 4)).round().astype(np.uint8)
    return Inspection(table, thumbnails)


def perceptual_hashes(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """DCT hashes (pHash) of grey images and of their mirror images.

    Bit for bit `imagehash.phash` of the same 32x32 images; done here for a whole batch because one call of the
    library costs three times the decoding of a 32 px JPEG. Mirroring an image only flips the sign of its odd
    horizontal frequencies, so the second hash is free.

    Args:
        grey: shape (n, 32, 32).

    Returns:
        Two arrays of n 64-bit hashes, first bit the most significant.
    """
    basis = _dct_basis()
    low = basis @ grey.astype(np.float64) @ basis.T
    signs = np.where(np.arange(HASH_PX) % 2, -1.0, 1.0)
    return _pack(low), _pack(low * signs)


def _pack(low: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    flat = low.reshape(len(low), HASH_PX * HASH_PX)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(len(low))


@lru_cache(maxsize=1)
def _dct_basis() -> npt.NDArray[np.float64]:
    """The lowest 8 rows of the unnormalised DCT-II matrix for 32 samples."""
    k = np.arange(HASH_PX)[:, None]
    n = np.arange(GREY_PX)[None, :]
    basis: npt.NDArray[np.float64] = 2.0 * np.cos(np.pi * k * (2 * n + 1) / (2 * GREY_PX))
    return basis


def _grey(rgb: Image.Image) -> Image.Image:
    return rgb.convert("L").resize((GREY_PX, GREY_PX), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _luma(colour: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pillow's `convert("L")` for a batch: ITU-R 601-2 in 16-bit fixed point."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((colour.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)


def _sharpness(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    g = grey.astype(np.int16)
    laplacian = 4 * g[:, 1:-1, 1:-1] - g[:, :-2, 1:-1] - g[:, 2:, 1:-1] - g[:, 1:-1, :-2] - g[:, 1:-1, 2:]
    return np.asarray(np.abs(laplacian).mean((1, 2)), np.float32)
