"""PNG's chunks, read by their lengths: what makes the picture, what colours and turns it, and where its frames are."""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from serving.detector.image import profiles
from serving.detector.image.header import Size
from serving.detector.image.refusal import damaged

MAX_CHUNKS: Final = 65_536
"""Chunks of one file; encoders write a few thousand at most."""
MAX_EXIF_BYTES: Final = 1 << 20

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KEPT: Final = frozenset({b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"eXIf"})
_PALETTE: Final = 3
"""The colour type of pictures with a palette."""
_MOST_COLOURS: Final = 256
_LONGEST_NAME: Final = 79
"""Of a profile, in bytes."""


@dataclass(slots=True)
class Frame:
    """The first frame of an animation whose image data is only for those who show no animations."""

    size: Size
    offset: Size
    data: list[memoryview] = field(default_factory=list)


@dataclass(slots=True)
class Chunks:
    """What the chunks say."""

    head: bytes = b""
    """IHDR's 13 bytes."""
    palette: bytes = b""
    data: list[memoryview] = field(default_factory=list)
    """The image data's pieces."""
    other: dict[bytes, bytes] = field(default_factory=dict)
    """The first chunk of each ancillary kind that is used."""
    frames: int = 1
    animated: bool = False
    controls: int = 0
    """Frames that have begun."""
    frame: Frame | None = None


def walk(data: bytes) -> Chunks:
    """Read a PNG's chunks; ancillary ones with a wrong checksum or in a wrong place are left out, as browsers do.

    Raises:
        ImageRefusedError: no header, no image data, no palette where one is needed, or too many chunks.
    """
    found = Chunks()
    view = memoryview(data)
    at, total = len(SIGNATURE), len(data)
    for _ in range(MAX_CHUNKS):
        if at + 8 > total:
            break
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        body = view[at + 8 : min(at + 8 + length, total)]
        if kind == b"IDAT":
            found.data.append(body)
        elif kind == b"fdAT":
            _later_frame(found, body)
        elif kind == b"IEND" or at + 12 + length > total:
            break
        else:
            _read(found, kind, body, view[at + 8 + length : at + 12 + length])
        at += 12 + length
    else:
        raise damaged(f"the PNG has more than {MAX_CHUNKS:,} chunks")
    if len(found.head) != 13 or not found.data:
        raise damaged("the PNG data is damaged: it ends before its picture begins")
    if found.head[9] == _PALETTE and not found.palette:
        raise damaged("the PNG data is damaged: it has no palette in front of its picture")
    return found


def _read(found: Chunks, kind: bytes, body: memoryview, checksum: memoryview) -> None:
    """A chunk that is there as a whole and is no picture's data."""
    if kind in (b"acTL", b"fcTL"):
        _animation(found, kind, body)
        return
    critical = kind in (b"IHDR", b"PLTE")
    if not critical and not _allowed(found, kind, len(body)):
        return
    if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
        if critical:
            name = "header" if kind == b"IHDR" else "palette"
            raise damaged(f"the PNG data is damaged: its {name} fails its checksum")
    elif kind == b"IHDR":
        found.head = found.head or bytes(body)
    elif kind != b"PLTE":
        found.other[kind] = bytes(body)
    elif not found.data:
        found.palette = found.palette or bytes(body)


def _allowed(found: Chunks, kind: bytes, length: int) -> bool:
    """Whether an ancillary chunk is read where it stands; only an orientation may follow the picture."""
    if kind not in _KEPT or kind in found.other or length > MAX_EXIF_BYTES + profiles.MAX_PROFILE_BYTES:
        return False
    if kind == b"tRNS" and found.head[9:10] == bytes([_PALETTE]) and not (found.palette and length <= _MOST_COLOURS):
        return False
    return kind == b"eXIf" or not found.data


def _animation(found: Chunks, kind: bytes, body: memoryview) -> None:
    """acTL in front of the picture announces an animation; the first fcTL after the picture, its first frame."""
    if kind == b"acTL":
        if len(body) == 8 and not found.data:
            found.animated, found.frames = True, max(1, int.from_bytes(body[:4], "big"))
        return
    found.controls += 1
    if not (found.animated and found.controls == 1 and found.data and len(body) == 26 and len(found.head) == 13):
        return
    width, height, left, top = struct.unpack_from(">4I", body, 4)
    across, down = struct.unpack_from(">2I", found.head)
    if 0 < width <= across - left and 0 < height <= down - top:
        found.frame = Frame((width, height), (left, top))


def _later_frame(found: Chunks, body: memoryview) -> None:
    if found.frame is not None and found.controls == 1:
        # behind its number
        found.frame.data.append(body[4:])


def embedded_profile(chunk: bytes | None) -> bytes | None:
    """The profile of an iCCP chunk; None where there is none that can be used."""
    if not chunk:
        return None
    name, _, rest = chunk.partition(b"\0")
    if not 0 < len(name) <= _LONGEST_NAME or rest[:1] != b"\0":
        return None
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(rest[1:], profiles.MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return found if 128 <= len(found) <= profiles.MAX_PROFILE_BYTES else None


def of(kind: bytes, body: bytes) -> bytes:
    """A whole chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
