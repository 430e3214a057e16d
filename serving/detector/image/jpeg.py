"""JPEG: segments read by their lengths, pixels by libjpeg-turbo, and an honest count of the rows that are there.

libjpeg fills what is missing with grey and only warns. The decoder here tells of warnings, so a file without any is
known to be whole at no cost; only a file with warnings is looked at more closely.
"""

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from serving.detector.image import exif
from serving.detector.image.buffers import as_image
from serving.detector.image.cost import jpeg_bytes
from serving.detector.image.header import Header, Size
from serving.detector.image.refusal import LEAST_ROWS, damaged, rows_missing
from serving.platform.errors import ImageRefusedError

JPEG_DRAFT_FACTOR: Final = 4
"""A JPEG may be decoded at reduced scale only while both sides stay at least this many times the model's input."""

MAX_SCANS: Final = 64
"""Every scan of a progressive JPEG passes over the whole picture; encoders write about ten."""
MAX_SEGMENTS: Final = 4096
"""Segments in front of the picture; a profile or a map in pieces of 64 kB takes a few hundred."""

MIN_PADDING: Final = 512
"""Zeros at the end of a file without an end marker that are taken for padding."""

_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length: TEM, RST0-7, SOI."""
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_KNOWN_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive with Huffman codes: what browsers show."""
_SOS, _EOI = 0xDA, 0xD9
_END: Final = b"\xff\xd9"
_MARKED: Final = re.compile(rb"\xff+[^\xff]")
"""Any marker, with what it is filled up by."""
_MARKER: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""What ends a scan's data: a marker that is neither a stuffed byte nor a restart."""
_MODES: Final = {1: "L", 3: "RGB", 4: "CMYK"}
_COLOURS: Final = {"L": "GRAY", "RGB": "RGBX", "CMYK": "CMYK"}
_ICC: Final = b"ICC_PROFILE\0"
_LUMA_SUM: Final = 3688
_CHROMA_SUM: Final = 5505
"""Sums of the luminance and chrominance tables in ITU-T T.81 Annex K, the ones libjpeg scales by quality."""
_GAIN_MAPS: Final = (b"urn:iso:std:iso:ts:21496:-1\0", b"hdrgm:", b"HDRGainMap")


@dataclass(slots=True)
class _Scan:
    components: bytes
    first: int
    last: int
    low: int
    data: int
    """Offset of the scan's entropy-coded data."""


@dataclass(slots=True)
class Segments:
    """What the segments up to the first scan say."""

    size: Size = (0, 0)
    components: list[tuple[int, int, int]] = field(default_factory=list)
    """Identifier, horizontal and vertical sampling of each."""
    progressive: bool = False
    tables: dict[int, int] = field(default_factory=dict)
    """Sum of each quantisation table."""
    exif_block: bytes | None = None
    icc: dict[int, bytes] = field(default_factory=dict)
    gain_map: bool = False
    first_scan: int = 0
    """Offset of the first start-of-scan marker."""
    first_scan_components: int = 0


def walk(data: bytes) -> Segments:
    """Read a JPEG's segments up to its first scan, by their lengths, as libjpeg does.

    Raises:
        ImageRefusedError: no frame or no scan, a frame that browsers do not show, or too many segments.
    """
    found = Segments()
    at, seen = 2, 0
    # a marker may be filled up with any number of FF in front: passed over at memory speed
    while (marked := _MARKED.search(data, at)) is not None:
        at = marked.end()
        marker = data[at - 1]
        seen += 1
        if seen > MAX_SEGMENTS:
            raise damaged(f"the JPEG has more than {MAX_SEGMENTS:,} segments in front of its picture")
        if marker == 0 or marker in _BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == _EOI or length < 2 or at + length > len(data):
            break
        if marker == _SOS:
            found.first_scan, found.first_scan_components = at - 2, data[at + 2]
            break
        _read(found, marker, data, at + 2, at + length)
        at += length
    if not found.components or not found.first_scan:
        raise damaged("the JPEG data is damaged: it ends before its picture begins")
    return found


def _read(found: Segments, marker: int, data: bytes, start: int, end: int) -> None:
    if marker in _FRAMES:
        if marker not in _KNOWN_FRAMES or data[start] != 8:
            raise ImageRefusedError(
                "unsupported_type",
                "the file is a JPEG of a rare kind (lossless, arithmetic or 12-bit); save it as a usual JPEG",
            )
        if found.components:
            raise damaged("the JPEG data is damaged: it announces two pictures")
        height, width = (int.from_bytes(data[start + i : start + i + 2], "big") for i in (1, 3))
        found.size, found.progressive = (width, height), marker == 0xC2
        rest = data[start + 6 : end]
        found.components = [(rest[i], rest[i + 1] >> 4, rest[i + 1] & 15) for i in range(0, len(rest) - 2, 3)]
        if len(found.components) != data[start + 5]:
            raise damaged("the JPEG data is damaged: its header does not fit itself")
    elif marker == 0xDB:
        _read_tables(found, data[start:end])
    elif marker == 0xE1 and data.startswith(b"Exif\0", start):
        # the first block counts, as in browsers
        found.exif_block = found.exif_block or data[start:end]
    elif marker == 0xE2 and data.startswith(_ICC, start) and end - start > 14:
        found.icc.setdefault(data[start + 12], data[start + 14 : end])
    if marker in (0xE1, 0xE2) and not found.gain_map:
        found.gain_map = any(data.find(name, start, end) >= 0 for name in _GAIN_MAPS)


def _read_tables(found: Segments, body: bytes) -> None:
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        values = body[at + 1 : at + 1 + (128 if wide else 64)]
        at += 1 + (128 if wide else 64)
        found.tables[number] = sum(values) if not wide else sum(values[0::2]) * 256 + sum(values[1::2])


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
        self._scans = _scans(data, found.first_scan) if self._buffered else []
        # a missing end is no loss; said once, it spares the decoder a warning
        self._data = data if data.rfind(_END, found.first_scan) >= 0 else _without_padding(data) + _END
        self._complete = data is self._data
        stated = exif.read(found.exif_block) if found.exif_block else exif.NO_EXIF
        profile = b"".join(found.icc[number] for number in sorted(found.icc)) or None
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
            self.header.mode, self.header.size, width * height, samplings, self._buffered, self.header.orientation != 1
        )

    def load(self, target_px: int | None) -> Image.Image:
        """See `Picture`."""
        size = self._scaled(target_px)
        if self._buffered and not _finished(self._scans, self._segments.components, self._complete):
            raise rows_missing("JPEG", 0.0)
        try:
            pixels = self._pixels(self._data, size, strict=True)
        except ValueError as error:
            share = 1.0 if "premature" not in str(error).lower() else self._share_of_rows()
            if share < LEAST_ROWS:
                raise rows_missing("JPEG", share) from None
            pixels = self._pixels(self._data, size, strict=False)
        if self.header.mode == "CMYK":
            # Adobe's convention: stored inverted
            np.subtract(255, pixels, out=pixels)
        return as_image(pixels, self.header.mode)

    def _scaled(self, target_px: int | None) -> Size:
        """Size after decoding: halved while both sides keep `JPEG_DRAFT_FACTOR` times the target, thrice at most."""
        width, height = self.header.size
        if target_px is None:
            return width, height
        least = max(1, JPEG_DRAFT_FACTOR * target_px)
        factor = next((f for f in (8, 4, 2) if min(width, height) // least >= f), 1)
        return -(-width // factor), -(-height // factor)

    def _pixels(self, data: bytes, size: Size, *, strict: bool) -> npt.NDArray[np.uint8]:
        least = {} if size == self.header.size else {"min_width": size[0], "min_height": size[1]}
        found: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[self.header.mode], strict=strict, **least)
        return found

    def _share_of_rows(self) -> float:
        """Share of the rows above those that the last bytes of the data touch: they are whole."""
        start = self._scans[-1].data if self._scans else self._segments.first_scan
        found = _MARKER.search(self._data, start + 2)
        end = found.start() if found else len(self._data)
        # an eighth is enough to see where it ends
        width, height = self.header.size
        size = (width, height) if min(width, height) < 256 else (-(-width // 8), -(-height // 8))
        whole = self._pixels(self._data[:end] + _END, size, strict=False)
        for dropped in (4, 32, 256, 2048):
            if end - dropped <= start:
                break
            less = self._pixels(self._data[: end - dropped] + _END, size, strict=False)
            touched = np.flatnonzero((whole != less).reshape(len(whole), -1).any(axis=1))
            if len(touched):
                return float(touched[0]) / len(whole)
        return 0.0


def _without_padding(data: bytes) -> bytes:
    """The data without the zeros that a broken-off download leaves; a picture of one colour ends in some of its own."""
    stripped = data.rstrip(b"\0")
    return stripped if len(data) - len(stripped) >= MIN_PADDING else data


def _scans(data: bytes, first_scan: int) -> list[_Scan]:
    """Scans of the picture, by walking markers; stops at the end marker, wherever libjpeg would."""
    found: list[_Scan] = []
    at = first_scan
    for _ in range(MAX_SEGMENTS):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body, marker, at = data[at + 4 : at + 2 + length], data[at + 1], at + 2 + length
        if marker == _SOS:
            count = body[0] if body else 0
            if len(body) < 4 + 2 * count:
                return found
            spectral = body[1 + 2 * count :]
            found.append(_Scan(body[1 : 1 + 2 * count : 2], spectral[0], spectral[1], spectral[2] & 15, at))
            if len(found) > MAX_SCANS:
                raise damaged(f"the JPEG has more than {MAX_SCANS} scans; encoders write about ten")
        following = _MARKER.search(data, at)
        if following is None or data[following.end() - 1] == _EOI:
            return found
        at = following.end() - 2
    raise damaged(f"the JPEG has more than {MAX_SEGMENTS:,} segments among its scans")


def _finished(scans: list[_Scan], components: list[tuple[int, int, int]], complete: bool) -> bool:
    """Whether every coefficient of every component came, to its last bit unless the file says that it ends earlier."""
    for identifier, _, _ in components:
        low = [255] * 64
        for scan in scans:
            if identifier in scan.components:
                low[scan.first : scan.last + 1] = [scan.low] * (min(scan.last, 63) + 1 - scan.first)
        if max(low) == 255 or (max(low) > 0 and not complete):
            return False
    return True
