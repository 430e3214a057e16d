"""What an image may cost: the same caps for the server, the command line and the data checks."""

from dataclasses import dataclass
from typing import Final

from serving.platform.errors import ImageRefusedError

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class ImageLimits:
    """Caps on one image. Those on pixels act on the header, before anything is decoded."""

    min_side_px: int = 16
    max_pixels: int = 50_000_000
    max_bytes: int = 10 * MIB
    max_decode_bytes: int = 144 * MIB
    """Memory one decode may take beside the file; see `serving.detector.image.cost` for what each format takes."""

    def check_bytes(self, size: int) -> None:
        """Refuse a file of `size` bytes.

        Raises:
            ImageRefusedError: `empty` or `file_too_large`.
        """
        if not size:
            raise ImageRefusedError("empty", "the file is empty")
        if size > self.max_bytes:
            raise ImageRefusedError("file_too_large", f"the file has more than {self.max_bytes:,} bytes, the limit")

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a header's claim of (width, height) in pixels that is out of bounds.

        Raises:
            ImageRefusedError: `too_many_pixels` or `too_small`.
        """
        width, height = size
        if width * height > self.max_pixels:
            raise ImageRefusedError("too_many_pixels", f"{width}x{height} has more than {self.max_pixels:,} pixels")
        if min(width, height) < self.min_side_px:
            raise ImageRefusedError("too_small", f"{width}x{height}: each side needs at least {self.min_side_px} px")

    def check_cost(self, size: tuple[int, int], name: str, need: int) -> None:
        """Refuse a decode that takes `need` bytes of memory.

        Raises:
            ImageRefusedError: `too_many_pixels`.
        """
        if need > self.max_decode_bytes:
            raise ImageRefusedError(
                "too_many_pixels",
                f"decoding {size[0]}x{size[1]} pixels of this {name} takes {need // MIB + 1} MiB, more than the "
                f"{self.max_decode_bytes // MIB} allowed; send it smaller or as a baseline JPEG",
            )


CAPS: Final = (
    f"JPEG, PNG, WebP, AVIF, HEIC or the first frame of a GIF, known by its bytes whatever its name. At most "
    f"{ImageLimits.max_bytes // MIB} MB and {ImageLimits.max_pixels // 10**6} megapixels, and what decodes within "
    f"{ImageLimits.max_decode_bytes // MIB} MiB of memory"
)
"""The caps in words, for the API's description and the guides."""
