"""What decoding an image will cost in memory and time, judged from its headers before a pixel is decoded."""

import struct
from typing import Final

from PIL import Image

MAX_JPEG_SCANS: Final = 64
"""Every scan of a progressive JPEG passes over the whole picture; encoders write about ten."""

_BYTES_PER_PIXEL: Final = {"PNG": (5.0, 9.0), "WEBP": (16.0, 17.0), "JPEG": (5.0, 9.0)}
"""Measured peak growth per decoded pixel (opaque, with alpha or CMYK): Pillow keeps 4 bytes a pixel, and converting
makes a second picture; libwebp adds two canvases of its own."""

_COEFFICIENT_BYTES: Final = 2

_SEGMENT: Final = struct.Struct(">H")


def decode_bytes(image: Image.Image, fmt: str, size: tuple[int, int], decoded_px: int, buffered: bool) -> int:
    """Peak memory in bytes that decoding takes beside the file itself.

    Args:
        image: opened, not yet loaded.
        fmt: JPEG, PNG or WEBP.
        size: width and height of the header.
        decoded_px: pixels that will really be decoded (fewer than the header's for a JPEG at reduced scale).
        buffered: see `is_buffered`.
    """
    four_channels = image.mode in ("RGBA", "LA", "PA", "CMYK") or "transparency" in image.info
    pixels = decoded_px * _BYTES_PER_PIXEL[fmt][four_channels]
    return int(pixels) + (_coefficient_bytes(image, size) if buffered else 0)


def jpeg_scans(data: bytes) -> int:
    """Number of scans of a JPEG's main picture; thumbnails inside its segments do not count."""
    first = _first_scan(data)
    end = data.find(b"\xff\xd9", first)
    return data.count(b"\xff\xda", first, end if end >= 0 else len(data))


def is_buffered(image: Image.Image, data: bytes) -> bool:
    """Whether libjpeg must hold all coefficients of a JPEG: progressive, or its first scan lacks components."""
    if image.info.get("progressive"):
        return True
    first = _first_scan(data)
    return first + 4 < len(data) and data[first + 4] < len(_layers(image))


def _coefficient_bytes(image: Image.Image, size: tuple[int, int]) -> int:
    layers = _layers(image)
    if not layers:
        return 0
    largest = max(h for _, h, _, _ in layers) * max(v for _, _, v, _ in layers)
    samples = sum(h * v for _, h, v, _ in layers) / largest
    return int(size[0] * size[1] * samples) * _COEFFICIENT_BYTES


def _layers(image: Image.Image) -> list[tuple[int, int, int, int]]:
    # (id, horizontal sampling, vertical sampling, table) of each component, as Pillow read them
    found: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    return found


def _first_scan(data: bytes) -> int:
    """Offset of the first start-of-scan marker; the length of `data` where there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            return at
        # fill bytes and markers without a length
        bare = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += (1 if marker == 0xFF else 2) if bare else 2 + _SEGMENT.unpack_from(data, at + 2)[0]
    return len(data)
