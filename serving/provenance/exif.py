"""The few EXIF fields in which files say what made them: a bounded reader of TIFF directories that never raises."""

import struct
from typing import Final

MAX_ENTRIES: Final = 256
MAX_VALUE_BYTES: Final = 256 * 1024

DESCRIPTION: Final = 0x010E
MAKE: Final = 0x010F
MODEL: Final = 0x0110
SOFTWARE: Final = 0x0131
ARTIST: Final = 0x013B
XMP: Final = 0x02BC
EXIF_DIRECTORY: Final = 0x8769
MAKER_NOTE: Final = 0x927C
USER_COMMENT: Final = 0x9286
XP_COMMENT: Final = 0x9C9C
XP_TITLE: Final = 0x9C9B

_WANTED: Final = frozenset(
    (DESCRIPTION, MAKE, MODEL, SOFTWARE, ARTIST, XMP, EXIF_DIRECTORY, MAKER_NOTE, USER_COMMENT, XP_COMMENT, XP_TITLE)
)
_WIDTHS: Final = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
_CHARACTER_CODE_BYTES: Final = 8


def fields(tiff: bytes) -> dict[int, bytes]:
    """Tag -> value bytes of the wanted fields of the first directory and its EXIF directory."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return {}
    found: dict[int, bytes] = {}
    entry = struct.Struct(order + "HHI4s")
    pointer = struct.Struct(order + "I")
    _directory(tiff, pointer.unpack_from(tiff, 4)[0], order, entry, found)
    inner = found.pop(EXIF_DIRECTORY, b"")
    if len(inner) == 4:
        _directory(tiff, pointer.unpack(inner)[0], order, entry, found)
        found.pop(EXIF_DIRECTORY, None)
    return found


def comment(value: bytes) -> bytes:
    """A user comment without its character code; what is UTF-16 without its zero bytes."""
    head, text = value[:_CHARACTER_CODE_BYTES], value[_CHARACTER_CODE_BYTES:]
    if head in (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", bytes(_CHARACTER_CODE_BYTES)):
        value = text
    return narrow(value)


def narrow(text: bytes) -> bytes:
    """Text in which ASCII can be looked for: UTF-16 and UTF-32 of either order lose their zero bytes."""
    return text.replace(b"\0", b"") if b"\0" in text[:64] else text


def _directory(tiff: bytes, at: int, order: str, entry: struct.Struct, found: dict[int, bytes]) -> None:
    if at + 2 > len(tiff):
        return
    (count,) = struct.unpack_from(order + "H", tiff, at)
    end = min(at + 2 + min(count, MAX_ENTRIES) * 12, (len(tiff) - at - 2) // 12 * 12 + at + 2)
    for tag, kind, n, value in entry.iter_unpack(tiff[at + 2 : end]):
        if tag not in _WANTED or tag in found or kind not in _WIDTHS:
            continue
        size = n * _WIDTHS[kind]
        if size <= 4:
            found[tag] = value[:size]
        else:
            (offset,) = struct.unpack(order + "I", value)
            found[tag] = tiff[offset : offset + min(size, MAX_VALUE_BYTES)]
