"""Untrusted bytes to an upright RGB image: the only decoder of the project (serving, evaluation and data checks)."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps

from serving.detector.cost import MAX_JPEG_SCANS, decode_bytes, is_buffered, jpeg_scans
from serving.platform.errors import ImageRefusedError

ImageFormat = Literal["JPEG", "PNG", "WEBP"]

JPEG_DRAFT_FACTOR: Final = 4
"""A JPEG may be decoded at reduced scale only while both sides stay at least this many times the model's input."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost. The pixel caps act on the header, before anything is decoded."""

    min_side_px: int = 16
    max_pixels: int = 50_000_000
    max_decode_bytes: int = 144 * 1024 * 1024
    """Memory one decode may take: about 30 megapixels of opaque PNG, 9 of WebP, 50 of JPEG at reduced scale."""


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


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright 8-bit sRGB picture (mode `RGB`) and what its file looked like."""

    rgb: Image.Image
    info: ImageInfo


def sniff(data: bytes) -> ImageFormat | None:
    """The real type by magic bytes, whatever a file name or header claims."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def decode(data: bytes, limits: ImageLimits | None = None, target_px: int | None = None) -> DecodedImage:
    """Decode one image to upright sRGB: first frame, EXIF orientation applied, ICC to sRGB, alpha over white.

    Args:
        data: the file's bytes (JPEG, PNG or WebP).
        limits: caps; the default is what the server enforces.
        target_px: the model's input side; lets a large JPEG be decoded at reduced scale.

    Raises:
        ImageRefusedError: empty, of another type, damaged, too large or too small.
    """
    limits = limits or ImageLimits()
    if not data:
        raise ImageRefusedError("empty", "the file is empty")
    fmt = sniff(data)
    if fmt is None:
        raise ImageRefusedError("unsupported_type", "not a JPEG, PNG or WebP image (judged by its bytes)")
    try:
        image = Image.open(BytesIO(data), formats=[fmt])
        check_size(image.size, limits)
        size = image.size
        # before anything asks for EXIF, which makes Pillow decode a whole PNG
        _check_cost(image, fmt, data, limits, target_px)
        info = _describe(image, fmt, size)
        image.load()
        if info.exif_orientation != 1:
            ImageOps.exif_transpose(image, in_place=True)
        return DecodedImage(_to_srgb(image), info)
    except ImageRefusedError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageRefusedError("too_many_pixels", str(error)) from error
    except Exception as error:
        # Pillow's plugins answer damage with nearly any exception
        raise ImageRefusedError("corrupt", f"the {fmt} data is damaged: {error}") from error


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Refuse a header's claim of (width, height) in pixels that is out of bounds."""
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageRefusedError("too_many_pixels", f"{width}x{height} has more than {limits.max_pixels:,} pixels")
    if min(width, height) < limits.min_side_px:
        raise ImageRefusedError("too_small", f"{width}x{height}: each side needs at least {limits.min_side_px} px")


def _check_cost(image: Image.Image, fmt: ImageFormat, data: bytes, limits: ImageLimits, target_px: int | None) -> None:
    """Set a JPEG to reduced scale where that is allowed; refuse what would still cost too much."""
    buffered = fmt == "JPEG" and is_buffered(image, data)
    if buffered and (scans := jpeg_scans(data)) > MAX_JPEG_SCANS:
        raise ImageRefusedError("corrupt", f"the JPEG has {scans} scans; at most {MAX_JPEG_SCANS} are decoded")
    full = image.size
    width, height = full
    if target_px is not None and fmt == "JPEG":
        image.draft(None, (JPEG_DRAFT_FACTOR * target_px, JPEG_DRAFT_FACTOR * target_px))
        width, height = image.size
    need = decode_bytes(image, fmt, full, width * height, buffered)
    if need > limits.max_decode_bytes:
        raise ImageRefusedError(
            "too_many_pixels",
            f"decoding {full[0]}x{full[1]} pixels of this {fmt} takes {need >> 20} MiB, more than the "
            f"{limits.max_decode_bytes >> 20} allowed; send it smaller or as a baseline JPEG",
        )


def _describe(image: Image.Image, fmt: ImageFormat, size: tuple[int, int]) -> ImageInfo:
    exif = image.getexif()
    orientation = int(exif.get(0x0112, 1))
    width, height = size
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    tables = getattr(image, "quantization", None)
    return ImageInfo(
        format=fmt,
        width=width,
        height=height,
        mode=image.mode,
        frames=int(getattr(image, "n_frames", 1)),
        exif_orientation=orientation,
        has_icc=bool(image.info.get("icc_profile")),
        has_alpha=image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
        jpeg_quality=estimate_jpeg_quality(tables[0]) if tables else None,
        jpeg_chroma_quality=estimate_jpeg_quality(tables[1], _STANDARD_CHROMA_SUM) if tables and 1 in tables else None,
        has_exif=len(exif) > 0,
    )


_STANDARD_LUMA_SUM: Final = 3688
_STANDARD_CHROMA_SUM: Final = 5505
"""Sums of the luminance and chrominance tables in ITU-T T.81 Annex K, the ones libjpeg scales by quality."""


def estimate_jpeg_quality(table: list[int], standard_sum: int = _STANDARD_LUMA_SUM) -> float:
    """Libjpeg quality (1-100) whose scaling of the Annex K table (luminance by default) has this table's sum."""
    scale = 100.0 * sum(table) / standard_sum
    quality = 5000.0 / scale if scale > 100 else (200.0 - scale) / 2.0
    return float(min(100.0, max(1.0, quality)))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any mode Pillow decodes to 8-bit sRGB over white. `convert("RGB")` alone clips 16 bit and shows hidden colour.

    Works in place where the mode allows it: at most two pictures of the image's size exist at once.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode in ("LA", "PA", "P") or (image.mode != "RGBA" and "transparency" in image.info):
        image = image.convert("RGBA")
    if profile:
        image = _apply_profile(image, profile)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The image in sRGB; as it is where the profile is sRGB already, does not fit the mode, or is broken."""
    transform = _srgb_transform(profile, image.mode) if image.mode in ("RGB", "RGBA", "L", "CMYK") else None
    if transform is None:
        return image
    try:
        if image.mode in ("RGB", "RGBA"):
            ImageCms.applyTransform(image, transform, inPlace=True)
            return image
        return ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, ValueError):
        return image


@lru_cache(maxsize=64)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Transform from an embedded profile to sRGB; None when it already is sRGB or is broken (then sRGB is assumed)."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode in ("RGB", "RGBA") and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, mode if mode == "RGBA" else "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
