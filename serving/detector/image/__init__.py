"""Untrusted bytes to an upright sRGB image: the only decoder of the project (serving, evaluation and data checks)."""

from serving.detector.image.decoding import DecodedImage, ImageInfo, decode
from serving.detector.image.jpeg import JPEG_DRAFT_FACTOR
from serving.detector.image.kinds import HEAD_BYTES, ImageFormat, kind_of, sniff
from serving.detector.image.limits import CAPS, ImageLimits
from serving.detector.image.refusal import REASONS

__all__ = [
    "CAPS",
    "HEAD_BYTES",
    "JPEG_DRAFT_FACTOR",
    "REASONS",
    "DecodedImage",
    "ImageFormat",
    "ImageInfo",
    "ImageLimits",
    "decode",
    "kind_of",
    "sniff",
]
