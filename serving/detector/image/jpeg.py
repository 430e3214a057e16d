"""JPEG: pixels by libjpeg-turbo, and an honest count of the rows that are there.

libjpeg fills what is missing with grey and only warns. The decoder here tells of warnings, so a file without any is
known to be whole at no cost; only a file with warnings is looked at more closely.
"""

from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from serving.detector.image import exif
from serving.detector.image.buffers import as_image
from serving.detector.image.cost import jpeg_bytes
from serving.detector.image.header import Header, Size
from serving.detector.image.jpeg_segments import MARKER, check_scanned, finished, painting, scans_of, walk
from serving.detector.image.refusal import LEAST_ROWS, damaged, rows_missing

JPEG_DRAFT_FACTOR: Final = 4
"""A JPEG may be decoded at reduced scale only while both sides stay at least this many times the model's input."""

MIN_PADDING: Final = 512
"""Zeros at the end of a file without an end marker that are taken for padding."""

_END: Final = b"\xff\xd9"
_MODES: Final = {1: "L", 3: "RGB", 4: "CMYK"}
_COLOURS: Final = {"L": "GRAY", "RGB": "RGBX", "CMYK": "CMYK"}
_LUMA_SUM: Final = 3688
_CHROMA_SUM: Final = 5505
"""Sums of the luminance and chrominance tables in ITU-T T.81 Annex K, the ones libjpeg scales by quality."""
_USUAL: Final = frozenset({(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)})
"""How many times finer than the colours, across and down, the brightness may be for the decoder used here."""
_MORE_BYTES: Final = 64
_EIGHTH, _QUARTER = 8, 4
_SMALL_PX: Final = 256
"""Pictures with a smaller side are looked at whole."""

Span = tuple[int, int]
"""From where to where some bytes of the file are."""


def quality(table_sum: int, standard_sum: int = _LUMA_SUM) -> float:
    """Libjpeg quality (1-100) whose scaling of the Annex K table (luminance by default) has this table's sum."""
    scale = 100.0 * table_sum / standard_sum
    found = 5000.0 / scale if scale > 100 else (200.0 - scale) / 2.0
    return float(min(100.0, max(1.0, found)))


class JpegPicture:
    """An opened JPEG."""

    def __init__(self, data: bytes) -> None:
        self._segments = found = walk(data)
        mode = _MODES.get(len(found.components))
        if mode is None:
            raise damaged(f"the JPEG data is damaged: {len(found.components)} colour channels")
        self._buffered = found.progressive or found.first_scan_components < len(found.components)
        self._scans = scans_of(data, found.first_scan) if self._buffered else []
        check_scanned(self._scans, found.size)
        # a missing end is no loss; said once, it spares the decoder a warning
        self._data = data if data.rfind(_END, found.first_scan) >= 0 else _without_padding(data) + _END
        self._complete = data is self._data
        stated = exif.read(found.exif_block) if found.exif_block else exif.NO_EXIF
        profile = found.profile()
        self._rare = mode == "RGB" and _ratio(found.components) not in _USUAL
        self._moved = 0
        self.header = Header(
            format="JPEG",
            size=found.size,
            mode=mode,
            orientation=stated.orientation,
            has_exif=stated.present,
            profile=profile,
            has_icc=profile is not None,
            gain_map=found.gain_map,
            luma_quality=quality(found.tables[0]) if 0 in found.tables else None,
            chroma_quality=quality(found.tables[1], _CHROMA_SUM) if 1 in found.tables else None,
        )

    def need_bytes(self, target_px: int | None) -> int:
        """See `Picture`."""
        samplings = [(across, down) for _, across, down in self._segments.components]
        width, height = self._scaled(target_px)
        return jpeg_bytes(
            self.header.mode,
            self.header.size,
            width * height,
            samplings,
            self._buffered,
            self.header.orientation != 1,
            self._rare,
        )

    def load(self, target_px: int | None) -> Image.Image:
        """See `Picture`."""
        size = self._scaled(target_px)
        if self._buffered and not finished(self._scans, self._segments.components, self._complete):
            raise rows_missing("JPEG", 0.0)
        if self._rare:
            self._strip()
            pixels = self._what_is_there(size)
        else:
            try:
                pixels = self._pixels(self._data, size, strict=True)
            except ValueError:
                self._strip()
                pixels = self._what_is_there(size)
        if self.header.mode == "CMYK":
            # Adobe's convention: stored inverted
            np.subtract(255, pixels, out=pixels)
        return as_image(pixels, self.header.mode)

    def _strip(self) -> None:
        """Leave out what is no part of the picture: the decoder gives up at what is odd in front of the first scan."""
        front = self._segments.front(self._data)
        self._moved = len(front) - self._segments.first_scan
        self._data = front + self._data[self._segments.first_scan :]

    def _what_is_there(self, size: Size) -> npt.NDArray[np.uint8]:
        """The pixels of a file that the decoder may warn of, where nearly all of its rows are there.

        Only its first warning is heard, which may be a harmless one in front of the end of the data.
        """
        try:
            pixels, warned = self._pixels(self._data, size, strict=True), self._rare
        except ValueError:
            pixels, warned = self._pixels(self._data, size, strict=False), True
        share = self._share_of_rows(pixels) if warned else 1.0
        if share < LEAST_ROWS:
            raise rows_missing("JPEG", share) from None
        return pixels

    def _share_of_rows(self, pixels: npt.NDArray[np.uint8]) -> float:
        """The least share of the rows that one scan brought: the last, or an earlier one whose loss shows."""
        last = self._last_scan()
        share = 1.0 if self._whole(last, _EIGHTH, pixels) else self._share_in(last, _EIGHTH)
        for scan in painting(self._scans[:-1]):
            if share < LEAST_ROWS:
                break
            span = self._span(self._moved + scan.data)
            # averages are seen at an eighth of the size, coarse waves are not
            reduced = _EIGHTH if scan.first == 0 else _QUARTER
            if not self._whole(span, reduced):
                share = min(share, self._share_in(span, reduced))
        return share

    def _whole(self, scan: Span, reduced: int, pixels: npt.NDArray[np.uint8] | None = None) -> bool:
        """Whether more data of a scan would change nothing.

        Looked at in small, for the picture stays in memory meanwhile; `pixels` are it where they may be of that size.
        """
        start, end = scan
        more = self._data[start : min(start + _MORE_BYTES, end)].rstrip(b"\xff")
        if not more:
            return False
        # between two restart intervals nothing is read but a marker, and which one depends on those that were lost
        restarts = [bytes((0xFF, 0xD0 + n)) for n in range(8)] if self._segments.restarts else []
        size = self._glance(reduced)
        if pixels is None or pixels.shape[:2] != size[::-1]:
            pixels = self._pixels(self._data[:end] + _END, size, strict=False)
        return all(
            np.array_equal(pixels, self._pixels(self._data[:end] + added + more + _END, size, strict=False))
            for added in (b"", *restarts)
        )

    def _glance(self, reduced: int) -> Size:
        """A part of the size is enough to see where the data ends; of a small picture it is the whole."""
        width, height = self.header.size
        reduced = self._reduced(reduced)
        return -(-width // reduced), -(-height // reduced)

    def _reduced(self, reduced: int) -> int:
        return 1 if self._rare or min(self.header.size) < _SMALL_PX else reduced

    def _last_scan(self) -> Span:
        """From where to where the data of the last scan is."""
        if self._scans:
            return self._span(self._moved + self._scans[-1].data)
        header = self._moved + self._segments.first_scan + 2
        return self._span(header + int.from_bytes(self._data[header : header + 2], "big"))

    def _span(self, start: int) -> Span:
        found = MARKER.search(self._data, start)
        return start, found.start() if found else len(self._data)

    def _scaled(self, target_px: int | None) -> Size:
        """Size after decoding: halved while both sides keep `JPEG_DRAFT_FACTOR` times the target, thrice at most."""
        width, height = self.header.size
        if target_px is None or self._rare:
            return width, height
        fits = min(width, height) // max(1, JPEG_DRAFT_FACTOR * target_px)
        if fits < 2:
            return width, height
        factor = next(f for f in (8, 4, 2) if fits >= f)
        return -(-width // factor), -(-height // factor)

    def _pixels(self, data: bytes, size: Size, *, strict: bool) -> npt.NDArray[np.uint8]:
        if self._rare:
            return _by_pillow(data)
        least = {} if size == self.header.size else {"min_width": size[0], "min_height": size[1]}
        found: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[self.header.mode], strict=strict, **least)
        return found

    def _share_in(self, scan: Span, reduced: int) -> float:
        """Share of the rows above those that the last bytes of a scan touch: they are whole."""
        start, end = scan
        size = self._glance(reduced)
        whole = self._pixels(self._data[:end] + _END, size, strict=False)
        # where a block's last bytes show is not where it begins
        height_of_blocks = 8 * max(down for _, _, down in self._segments.components) // self._reduced(reduced)
        for dropped in (4, 32, 256, 2048):
            if end - dropped <= start:
                break
            less = self._pixels(self._data[: end - dropped] + _END, size, strict=False)
            touched = np.flatnonzero((whole != less).reshape(len(whole), -1).any(axis=1))
            if len(touched):
                return float(touched[0] - touched[0] % height_of_blocks) / len(whole)
        return 0.0


def _without_padding(data: bytes) -> bytes:
    """The data without the zeros that a broken-off download leaves; a picture of one colour ends in some of its own."""
    stripped = data.rstrip(b"\0")
    return stripped if len(data) - len(stripped) >= MIN_PADDING else data


def _ratio(components: list[tuple[int, int, int]]) -> tuple[float, float]:
    """How many times finer than the colours the brightness is, across and down; (0, 0) where the colours differ."""
    (_, across, down), *colours = components
    if len({colour[1:] for colour in colours}) != 1 or not all(colours[0][1:]):
        return 0.0, 0.0
    return across / colours[0][1], down / colours[0][2]


def _by_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    """The pixels of a file whose sampling the decoder used here does not know; of shape (height, width, 4)."""
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGBX"))
    except OSError as error:
        raise ValueError(str(error)) from error
