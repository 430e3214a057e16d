"""What decoding an image costs in memory, judged from its header before a pixel is decoded.

Bytes per decoded pixel are the measured peak of `decode` (growth of the resident set beside the file), rounded up;
`python -m tests.bench.bench_decode` prints the table in docs/guides.
"""

from collections.abc import Sequence
from typing import Final

_JPEG: Final = {"L": 5.5, "RGB": 5.0, "CMYK": 8.5}
_RARE: Final = 28.0
_COEFFICIENT_BYTES: Final = 2


def jpeg_bytes(
    mode: str,
    size: tuple[int, int],
    decoded_px: int,
    samplings: Sequence[tuple[int, int]],
    buffered: bool,
    turned: bool,
    rare: bool = False,
) -> int:
    """Peak memory of a JPEG.

    Args:
        mode: L, RGB or CMYK.
        size: width and height of the header.
        decoded_px: pixels that will really be decoded (fewer than the header's at reduced scale).
        samplings: horizontal and vertical sampling of each component.
        turned: by EXIF; the picture and its turned copy are held.
        rare: its sampling takes another decoder, and two pictures that are compared.
        buffered: libjpeg must hold all coefficients: progressive, or the first scan lacks components.
    """
    pixels = int(decoded_px * max(_JPEG[mode], _TURNED if turned else 0.0, _RARE if rare else 0.0))
    if not buffered:
        return pixels
    largest = max(1, max(across for across, _ in samplings) * max(down for _, down in samplings))
    samples = sum(across * down for across, down in samplings) / largest
    return pixels + int(size[0] * size[1] * samples) * _COEFFICIENT_BYTES


_PNG: Final = {"1": 7.0, "L": 5.5, "P": 5.5, "I;16": 5.5, "LA": 15.0, "RGB": 5.0, "RGBA": 9.1}
_WITH_ALPHA: Final = 10.5
"""At least, where a key colour or a palette has transparency."""
_DEEP_COLOUR: Final = 10.5
"""At least: of 16 bits both halves are held."""
_TURNED: Final = 8.5
"""At least: the picture and its turned copy."""


_GREY_WITH_PROFILE: Final = 8.5
"""At least, of 16-bit greys: they become colours."""
PLACED_BYTES: Final = 8.0
"""More, where a frame is laid on a larger canvas."""


def png_bytes(mode: str, depth: int, has_alpha: bool, turned: bool, profiled: bool = False) -> float:
    """Peak memory of a PNG in bytes per pixel."""
    return max(
        _PNG[mode],
        _WITH_ALPHA if has_alpha and mode not in ("LA", "RGBA") else 0.0,
        _DEEP_COLOUR if depth == 16 and mode in ("RGB", "RGBA") else 0.0,
        _TURNED if turned else 0.0,
        _GREY_WITH_PROFILE if profiled and mode == "I;16" else 0.0,
    )


AMPLE_BYTES: Final = 128 * 1024 * 1024
"""A WebP that takes more at full size is decoded at reduced scale, where the model's input allows it."""
_WEBP: Final = {"RGB": 5.0, "RGBA": 11.0}
_WEBP_LOSSLESS: Final = 5.0


def webp_bytes(mode: str, decoded_px: int, lossless_px: int, turned: bool) -> int:
    """Peak memory of a WebP; a lossless one is held whole while it is scaled."""
    return int(decoded_px * max(_WEBP[mode], _TURNED if turned else 0.0) + lossless_px * _WEBP_LOSSLESS)


def gif_bytes(px: int) -> int:
    """Peak memory of a GIF."""
    return 10 * px


def avif_bytes(mode: str, deep: bool, full_chroma: bool) -> float:
    """Peak memory of an AVIF in bytes per pixel; the planes count twice as deep above 8 bits."""
    planes = (3.0 if full_chroma else 1.5) * (2 if deep else 1)
    return {"L": 6.0, "RGB": 9.0, "RGBA": 14.0}.get(mode, 14.0) + planes


def heif_bytes(mode: str, deep: bool) -> float:
    """Peak memory of a HEIC in bytes per pixel."""
    return {"L": 8.0, "RGB": 12.0, "RGBA": 17.0}.get(mode, 17.0) + (3.0 if deep else 0.0)
