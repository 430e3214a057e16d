"""JPEG's segments, read by their lengths as libjpeg does, and its scans."""

import re
from dataclasses import dataclass, field
from typing import Final

from serving.detector.image.header import Size
from serving.detector.image.refusal import damaged
from serving.platform.errors import ImageRefusedError

MAX_SCANS: Final = 64
"""Every scan of a progressive JPEG passes over the whole picture; encoders write about ten."""
USUAL_SCANS: Final = 16
MAX_SCANNED_PX: Final = 200_000_000
"""Scans times pixels, where there are more scans than usual: sixty of a picture of 41 megapixels took seven seconds."""
MAX_SEGMENTS: Final = 4096
"""Segments in front of the picture; a profile or a map in pieces of 64 kB takes a few hundred."""
MARKER: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""What ends a scan's data: a marker that is neither a stuffed byte nor a restart."""

_MARKED: Final = re.compile(rb"\xff+[^\xff]")
"""Any marker, with what it is filled up by."""
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length: TEM, RST0-7, SOI."""
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_KNOWN_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive with Huffman codes. An arithmetic coder cannot tell that its data is cut short."""
_COMMENTS: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
_COARSE: Final = 4
"""The last coefficient, in the order of the file, that is looked at in a quarter of the size."""
_SOS, _EOI, _TABLES, _RESTARTS, _EXIF, _PROFILE, _ADOBE = 0xDA, 0xD9, 0xDB, 0xDD, 0xE1, 0xE2, 0xEE
_ICC: Final = b"ICC_PROFILE\0"
_GAIN_MAPS: Final = (b"urn:iso:std:iso:ts:21496:-1\0", b"hdrgm:", b"HDRGainMap")


@dataclass(slots=True)
class Scan:
    """One pass over the picture."""

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
    restarts: bool = False
    """Whether the data is cut by restart markers."""
    exif_block: bytes | None = None
    icc: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Number, stated count and content of each part of a profile."""
    gain_map: bool = False
    jfif: bool = False
    adobe: int | None = None
    """Adobe's code of the colour transform."""
    kept: list[tuple[int, int]] = field(default_factory=list)
    """From where to where the segments are that a decoder needs."""
    first_scan: int = 0
    """Offset of the first start-of-scan marker."""
    first_scan_components: int = 0

    def profile(self) -> bytes | None:
        """The profile, where its parts are as they say; of a profile in one part, the first such part."""
        if not self.icc:
            return None
        if self.icc[0][1] == 1:
            return self.icc[0][2]
        parts = {number: body for number, _, body in self.icc}
        whole = sorted(parts) == list(range(1, len(self.icc) + 1))
        counted = all(total == len(self.icc) for _, total, _ in self.icc)
        return b"".join(parts[number] for number in sorted(parts)) or None if whole and counted else None

    def front(self, data: bytes) -> bytes:
        """What stands in front of the first scan, without all that is no part of the picture.

        How the colours are coded, which libjpeg derives from segments left out, is said in Adobe's segment.
        """
        adobe = self._transform()
        body = b"Adobe\0\x64\0\0\0\0"
        said = b"" if adobe is None else b"\xff\xee\0\x0e" + body + bytes([adobe])
        return b"\xff\xd8" + said + b"".join(data[start:end] for start, end in self.kept)

    def _transform(self) -> int | None:
        """Adobe's code of what libjpeg takes the colours for: 0 as they are, 1 YCbCr, 2 YCCK."""
        if len(self.components) == 4:
            return None if self.adobe is None else 0 if self.adobe == 0 else 2
        if len(self.components) != 3:
            return None
        if self.jfif:
            return 1
        named = bytes(identifier for identifier, _, _ in self.components)
        return int(self.adobe != 0) if self.adobe is not None else int(named != b"RGB")


def walk(data: bytes) -> Segments:
    """Read a JPEG's segments up to its first scan.

    Raises:
        ImageRefusedError: no frame or no scan, a frame that browsers do not show, or too many segments.
    """
    found = Segments()
    at, seen = 2, 0
    while (at := _after_marker(data, at)) >= 0:
        marker = data[at - 1]
        seen += 1
        if seen > MAX_SEGMENTS:
            raise damaged(f"the JPEG has more than {MAX_SEGMENTS:,} segments in front of its picture")
        if marker == 0 or marker in _BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in _COMMENTS:
            # libjpeg reads a length that is too small for itself as none
            length = max(2, length)
        if marker == _EOI or length < 2 or at + length > len(data):
            break
        if marker == _SOS:
            found.first_scan, found.first_scan_components = at - 2, data[at + 2]
            break
        if marker in _COMMENTS:
            _read_comment(found, marker, data, at + 2, at + length)
        else:
            found.kept.append((at - 2, at + length))
            _read(found, marker, data, at + 2, at + length)
        at += length
    if not found.components or not found.first_scan:
        raise damaged("the JPEG data is damaged: it ends before its picture begins")
    return found


def _after_marker(data: bytes, at: int) -> int:
    """Offset behind the next marker from `at` on; -1 where there is none."""
    # nearly every marker stands where the segment before it ends
    if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"", b"\xff"):
        return at + 2
    # it may be filled up with any number of FF in front: passed over at memory speed
    marked = _MARKED.search(data, at)
    return marked.end() if marked else -1


def _read(found: Segments, marker: int, data: bytes, start: int, end: int) -> None:
    if marker not in _FRAMES:
        if marker == _TABLES:
            _read_tables(found, data[start:end])
        elif marker == _RESTARTS:
            found.restarts = any(data[start:end])
        return
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


def _read_comment(found: Segments, marker: int, data: bytes, start: int, end: int) -> None:
    """A segment that is no part of the picture."""
    if marker == 0xE0 and data.startswith(b"JFIF\0", start) and end - start >= 14:
        found.jfif = True
    elif marker == _ADOBE and data.startswith(b"Adobe", start) and end - start >= 12:
        found.adobe = data[start + 11]
    elif marker == _EXIF and data.startswith(b"Exif\0", start):
        # the first block counts, as in browsers
        found.exif_block = found.exif_block or data[start:end]
    elif marker == _PROFILE and data.startswith(_ICC, start) and end - start > 14:
        found.icc.append((data[start + 12], data[start + 13], data[start + 14 : end]))
    if marker in (_EXIF, _PROFILE) and not found.gain_map:
        found.gain_map = any(data.find(name, start, end) >= 0 for name in _GAIN_MAPS)


def _read_tables(found: Segments, body: bytes) -> None:
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        values = body[at + 1 : at + 1 + (128 if wide else 64)]
        at += 1 + (128 if wide else 64)
        found.tables[number] = sum(values) if not wide else sum(values[0::2]) * 256 + sum(values[1::2])


def scans_of(data: bytes, first_scan: int) -> list[Scan]:
    """Scans of the picture, by walking markers; stops at the end marker, wherever libjpeg would."""
    found: list[Scan] = []
    at = first_scan
    for _ in range(MAX_SEGMENTS):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body, marker, at = data[at + 4 : at + 2 + length], data[at + 1], at + 2 + length
        if marker == _SOS:
            count = body[0] if body else 0
            if len(body) < 4 + 2 * count:
                return found
            spectral = body[1 + 2 * count :]
            found.append(Scan(body[1 : 1 + 2 * count : 2], spectral[0], spectral[1], spectral[2] & 15, at))
            if len(found) > MAX_SCANS:
                raise damaged(f"the JPEG has more than {MAX_SCANS} scans; encoders write about ten")
        following = MARKER.search(data, at)
        if following is None or data[following.end() - 1] == _EOI:
            return found
        at = following.end() - 2
    raise damaged(f"the JPEG has more than {MAX_SEGMENTS:,} segments among its scans")


def check_scanned(scans: list[Scan], size: Size) -> None:
    """Refuse a large picture that is passed over more often than encoders do.

    Raises:
        ImageRefusedError: `corrupt`.
    """
    if len(scans) > USUAL_SCANS and len(scans) * size[0] * size[1] > MAX_SCANNED_PX:
        raise damaged(
            f"the JPEG has {len(scans)} scans of {size[0]}x{size[1]} pixels; encoders write about ten, and of so large "
            f"a picture at most {USUAL_SCANS} are read"
        )


def painting(scans: list[Scan]) -> list[Scan]:
    """Those scans whose loss shows: each is the first to bring an average or a coarse wave of some component."""
    brought: set[tuple[int, int]] = set()
    found = []
    for scan in scans:
        coarse = range(scan.first, min(scan.last, _COARSE) + 1)
        brings = {(component, wave) for component in scan.components for wave in coarse}
        if not brings <= brought:
            found.append(scan)
            brought |= brings
    return found


def finished(scans: list[Scan], components: list[tuple[int, int, int]], complete: bool) -> bool:
    """Whether every coefficient of every component came, to its last bit unless the file says that it ends earlier."""
    for identifier, _, _ in components:
        low = [255] * 64
        for scan in scans:
            if identifier in scan.components:
                low[scan.first : scan.last + 1] = [scan.low] * (min(scan.last, 63) + 1 - scan.first)
        if max(low) == 255 or (max(low) > 0 and not complete):
            return False
    return True
