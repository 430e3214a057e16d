"""The one way from bytes to pixels: sniff, read the header, refuse by caps, decode, turn upright, make it sRGB."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PIL import Image

from serving.detector.image.colour import to_srgb
from serving.detector.image.header import Header, Picture
from serving.detector.image.jpeg import JpegPicture
from serving.detector.image.kinds import ImageFormat, kind_of, sniff
from serving.detector.image.limits import ImageLimits
from serving.detector.image.png import PngPicture
from serving.detector.image.refusal import ACCEPTED, damaged
from serving.platform.errors import ImageRefusedError

logger = logging.getLogger(__name__)

_DEFAULT_LIMITS: Final = ImageLimits()
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what makes the picture upright."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the file said of itself before conversion to RGB (sizes as displayed, after EXIF orientation)."""

    format: ImageFormat
    width: int
    height: int
    mode: str
    frames: int
    exif_orientation: int
    has_icc: bool
    has_alpha: bool
    jpeg_quality: float | None
    """Estimated libjpeg quality, 1-100; None when the format has no quantisation tables."""
    jpeg_chroma_quality: float | None = None
    """The same of the chrominance table; None when there is none."""
    has_exif: bool = False
    hdr: bool = False
    """Declared as PQ or HLG; judged by its code values."""
    gain_map: bool = False
    """Has a second picture for HDR displays; the first is judged."""

    @classmethod
    def of(cls, header: Header) -> "ImageInfo":
        """The public part of a header."""
        width, height = header.size if header.orientation < 5 else header.size[::-1]
        return cls(
            format=header.format,
            width=width,
            height=height,
            mode=header.mode,
            frames=header.frames,
            exif_orientation=header.orientation,
            has_icc=header.has_icc,
            has_alpha=header.has_alpha,
            jpeg_quality=header.luma_quality,
            jpeg_chroma_quality=header.chroma_quality,
            has_exif=header.has_exif,
            hdr=header.hdr,
            gain_map=header.gain_map,
        )


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright 8-bit sRGB picture (mode `RGB`) and what its file looked like."""

    rgb: Image.Image
    info: ImageInfo


def decode(data: bytes, limits: ImageLimits | None = None, target_px: int | None = None) -> DecodedImage:
    """Decode one image to upright sRGB: first frame, EXIF orientation applied, profile to sRGB, alpha over white.

    Args:
        data: the file's bytes (JPEG, PNG, WebP, AVIF, HEIC or GIF).
        limits: caps; the default is what the server enforces.
        target_px: the model's input side; lets a large JPEG be decoded at reduced scale, and a WebP that would not
            fit into memory otherwise.

    Raises:
        ImageRefusedError: empty, of another type, damaged, too large or too small.
    """
    limits = limits or _DEFAULT_LIMITS
    limits.check_bytes(len(data))
    fmt = sniff(data)
    if fmt is None:
        raise _unsupported(data)
    try:
        picture = opened(data)
        header = picture.header
        limits.check_size(header.size)
        limits.check_cost(header.size, fmt, picture.need_bytes(target_px))
        image = picture.load(target_px)
        if header.orientation != 1:
            image = image.transpose(_TURNS[header.orientation])
        return DecodedImage(to_srgb(image, header.profile), ImageInfo.of(header))
    except ImageRefusedError:
        raise
    except Exception as error:
        # decoders answer damage with nearly any exception; its text is for the log alone
        logger.debug("%s does not decode", fmt, exc_info=True)
        raise damaged(f"the {fmt} data is damaged and cannot be read") from error


def opened(data: bytes) -> Picture:
    """A file of an accepted format with its header read; raises as `decode`."""
    fmt = sniff(data)
    if fmt is None:
        raise _unsupported(data)
    return _OPENERS[fmt](data)


def _unsupported(data: bytes) -> ImageRefusedError:
    kind = kind_of(data)
    return ImageRefusedError(
        "unsupported_type", f"the file is {kind.article} (judged by its bytes); save it as {ACCEPTED} and send that"
    )


def _later(module: str, name: str) -> Callable[[bytes], Picture]:
    """An opener whose module is imported by the first file of its kind."""

    def opened(data: bytes) -> Picture:
        from importlib import import_module

        found: Picture = getattr(import_module(f"serving.detector.image.{module}"), name)(data)
        return found

    return opened


_OPENERS: Final[dict[ImageFormat, Callable[[bytes], Picture]]] = {
    "JPEG": JpegPicture,
    "PNG": PngPicture,
    "WEBP": _later("webp", "WebpPicture"),
    "GIF": _later("gif", "GifPicture"),
    "AVIF": _later("avif", "AvifPicture"),
    "HEIF": _later("heif", "HeifPicture"),
}
