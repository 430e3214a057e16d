"""HEIC and HEIF, by libheif through pi-heif; the container's own rotation counts, its EXIF is not asked."""

from io import BytesIO
from typing import Final

import pi_heif
from PIL import Image

from serving.detector.image import description, profiles
from serving.detector.image.avif import code_points
from serving.detector.image.cost import heif_bytes
from serving.detector.image.header import Header
from serving.detector.image.png import rounded_grey

_HEAD_BYTES: Final = 1 << 16
_GAIN_MAPS: Final = (b"hdrgainmap", b"tmap")

# one core to a slot, and nothing decoded that is not judged
pi_heif.options.DECODE_THREADS = 1
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False


class HeifPicture:
    """An opened HEIC or HEIF."""

    def __init__(self, data: bytes) -> None:
        description.check(data, "HEIF")
        file = pi_heif.open_heif(BytesIO(data))
        self._image = image = file[file.primary_index]
        head = data[:_HEAD_BYTES]
        primaries, transfer = code_points(head)
        icc = image.info.get("icc_profile")
        described = None if icc else profiles.of_code_points(primaries, transfer)
        self._depth = int(image.info.get("bit_depth", 8))
        self.header = Header(
            format="HEIF",
            size=image.size,
            mode="RGBA" if image.mode == "RGBa" else image.mode,
            has_alpha=image.has_alpha,
            has_exif=bool(image.info.get("exif")),
            frames=max(1, len(file)),
            profile=icc or (described.profile if described else None),
            has_icc=bool(icc),
            hdr=profiles.is_hdr(transfer),
            gain_map=any(name in head for name in _GAIN_MAPS),
        )

    def need_bytes(self, target_px: int | None) -> int:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        width, height = self.header.size
        return int(width * height * heif_bytes(self.header.mode, self._depth > 8))

    def load(self, target_px: int | None) -> Image.Image:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        image: Image.Image = self._image.to_pillow()
        if image.mode == "RGBa":
            return image.convert("RGBA")
        return rounded_grey(image, None) if image.mode.startswith("I;16") else image
