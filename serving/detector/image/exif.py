"""The one thing that EXIF may decide, the orientation; everything else in it is unread."""

import struct
from dataclasses import dataclass
from typing import Final

MOST_ENTRIES: Final = 1024
"""Entries of the first directory that are looked at; cameras write about twenty."""

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_ENTRY_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Exif:
    """What was read of an EXIF block."""

    present: bool
    """There is a readable first directory with at least one entry."""
    orientation: int
    """1-8; 1 where none is stated as the standard wants it (one SHORT of 1-8). The first valid one counts."""


NO_EXIF: Final = Exif(False, 1)


def read(block: bytes) -> Exif:
    """Read a block of EXIF, with or without its `Exif` prefix. Never raises: what cannot be read is not there."""
    if block[:5] == b"Exif\0":
        block = block[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return NO_EXIF
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    if at < 8 or at + 2 > len(block):
        return NO_EXIF
    (count,) = struct.unpack_from(f"{order}H", block, at)
    count = min(count, MOST_ENTRIES, (len(block) - at - 2) // _ENTRY_BYTES)
    entries = block[at + 2 : at + 2 + count * _ENTRY_BYTES]
    for tag, kind, values, value in struct.iter_unpack(f"{order}HHIHxx", entries):
        if tag == _ORIENTATION and kind == _SHORT and values == 1 and 1 <= value <= 8:
            return Exif(True, value)
    return Exif(count > 0, 1)
