"""AVIF, by the decoder under Pillow's plugin: the plugin itself reads EXIF while it opens a file, and fails with it."""

from typing import Final

from PIL import Image, _avif

from serving.detector.image import description, profiles
from serving.detector.image.cost import avif_bytes
from serving.detector.image.header import Header

_HEAD_BYTES: Final = 1 << 16
"""Where a file's description stands: in front of its data."""
_THREADS: Final = 1
"""A slot has one core."""


class AvifPicture:
    """An opened AVIF."""

    def __init__(self, data: bytes) -> None:
        description.check(data, "AVIF")
        self._decoder = _avif.AvifDecoder(data, "auto", _THREADS)
        size, frames, mode, icc, exif_block, orientation, _ = self._decoder.get_info()
        head = data[:_HEAD_BYTES]
        self._deep, self._full_chroma = _coding(head)
        primaries, transfer = code_points(head)
        described = None if icc else profiles.of_code_points(primaries, transfer)
        self.header = Header(
            format="AVIF",
            size=size,
            mode=mode,
            has_alpha=mode == "RGBA",
            # of the container's own rotation and mirror; EXIF turns no AVIF
            orientation=orientation if 1 <= orientation <= 8 else 1,
            has_exif=bool(exif_block),
            frames=max(1, frames),
            profile=icc or (described.profile if described else None),
            has_icc=bool(icc),
            hdr=profiles.is_hdr(transfer),
            gain_map=b"tmap" in head,
        )

    def need_bytes(self, target_px: int | None) -> int:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        width, height = self.header.size
        return int(width * height * avif_bytes(self.header.mode, self._deep, self._full_chroma))

    def load(self, target_px: int | None) -> Image.Image:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        pixels = self._decoder.get_frame(0)[0]
        return Image.frombuffer(self.header.mode, self.header.size, pixels, "raw", self.header.mode, 0, 1)


def _coding(head: bytes) -> tuple[bool, bool]:
    """Whether the first AV1 configuration says more than 8 bits, and chroma at full resolution."""
    at = head.find(b"av1C")
    flags = head[at + 6] if 0 <= at < len(head) - 6 else 0x40
    return bool(flags & 0x40), not flags & 0x08


def code_points(head: bytes) -> tuple[int, int]:
    """Primaries and transfer of the first nclx colour box; (2, 2), unspecified, where there is none."""
    at = head.find(b"colrnclx")
    if not 0 <= at <= len(head) - 12:
        return 2, 2
    return int.from_bytes(head[at + 8 : at + 10], "big"), int.from_bytes(head[at + 10 : at + 12], "big")
