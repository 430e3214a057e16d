"""What every format's reader says of a file before a pixel is decoded, and how it is decoded."""

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from serving.detector.image.kinds import ImageFormat

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class Header:
    """A file's own words about its picture, as stored (before orientation)."""

    format: ImageFormat
    size: Size
    mode: str
    """Pillow's name of the stored channels: 1, L, LA, P, I;16, RGB, RGBA, CMYK."""
    has_alpha: bool = False
    orientation: int = 1
    has_exif: bool = False
    frames: int = 1
    profile: bytes | None = None
    """An ICC profile: embedded, or built from what the file says of its colours; None: sRGB."""
    has_icc: bool = False
    """A profile is embedded."""
    hdr: bool = False
    """The picture is declared as PQ or HLG; its code values are judged as if they were sRGB."""
    gain_map: bool = False
    """A second picture brightens it on HDR displays; the first one is judged, as on any other display."""
    luma_quality: float | None = None
    chroma_quality: float | None = None


class Picture(Protocol):
    """An opened file."""

    header: Header

    def need_bytes(self, target_px: int | None) -> int:
        """Peak memory that `load` takes beside the file."""
        ...

    def load(self, target_px: int | None) -> Image.Image:
        """The stored pixels, 8 bits a channel (mode L, LA, P, RGB, RGBA or CMYK), perhaps at reduced scale.

        Raises:
            ImageRefusedError: `corrupt`.
        """
        ...
