"""Metadata of HEIC and AVIF: items of the `meta` box and `uuid` boxes (ISO/IEC 14496-12, 23008-12), within bounds."""

import struct
from collections.abc import Iterator
from typing import Final, Literal

MAX_BOXES: Final = 256
MAX_ITEMS: Final = 512
MAX_ITEM_BYTES: Final = 1 << 20

_XMP_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_C2PA_UUID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_XMP_TYPE: Final = b"application/rdf+xml"


def metadata(data: bytes) -> Iterator[tuple[Literal["exif", "xmp", "c2pa"], bytes]]:
    """EXIF (with its leading offset), XMP and C2PA blocks of a file; nothing of one that is damaged."""
    for name, start, end in boxes(data, 0, len(data)):
        if name == b"uuid" and data[start : start + 16] == _C2PA_UUID:
            yield "c2pa", data[start + 16 : end]
        elif name == b"uuid" and data[start : start + 16] == _XMP_UUID:
            yield "xmp", data[start + 16 : end]
        elif name == b"meta":
            try:
                yield from _items(data, start + 4, end)
            except (struct.error, IndexError, ValueError):
                continue


def boxes(data: bytes, at: int, end: int, most: int = MAX_BOXES) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and end of each box, of so many at most."""
    for _ in range(most):
        if at + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and at + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            start = at + 16
        stop = end if size == 0 else min(end, at + size)
        if stop < start:
            return
        yield name, start, stop
        at = stop


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[Literal["exif", "xmp"], bytes]]:
    found = {name: (a, b) for name, a, b in boxes(data, start, end)}
    if b"iinf" not in found or b"iloc" not in found:
        return
    wanted = _wanted(data, *found[b"iinf"])
    idat = found.get(b"idat", (len(data), len(data)))[0]
    if wanted:
        for item, base in _locations(data, *found[b"iloc"], idat, set(wanted)):
            yield wanted[item], base


def _wanted(data: bytes, start: int, end: int) -> dict[int, Literal["exif", "xmp"]]:
    """Numbers of the items that hold metadata."""
    first = start + (6 if data[start] == 0 else 8)
    wanted: dict[int, Literal["exif", "xmp"]] = {}
    for name, at, stop in boxes(data, first, end):
        version = data[at] if at < stop else 0
        if name != b"infe" or version < 2:
            continue
        wide = version > 2
        number = int.from_bytes(data[at + 4 : at + (8 if wide else 6)], "big")
        kind = data[at + (10 if wide else 8) : at + (14 if wide else 12)]
        if kind == b"Exif":
            wanted[number] = "exif"
        elif kind == b"mime" and _XMP_TYPE in data[at:stop]:
            wanted[number] = "xmp"
    return wanted


def _locations(data: bytes, start: int, end: int, idat: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The bytes of the wanted items, by the item location box."""
    version, sizes = data[start], struct.unpack_from(">H", data, start + 4)[0]
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    at = start + 6
    wide = 4 if version == 2 else 2

    def take(size: int) -> int:
        nonlocal at
        if at + size > end:
            raise ValueError("the box ends early")
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(min(take(wide), MAX_ITEMS)):
        item = take(wide)
        method = take(2) & 15 if version else 0
        take(2)
        base = take(base_size) + (idat if method == 1 else 0)
        pieces = []
        for _ in range(min(take(2), MAX_ITEMS)):
            take(index_size)
            offset, length = base + take(offset_size), take(length_size)
            if item in wanted:
                pieces.append(data[offset : offset + min(length, MAX_ITEM_BYTES)])
        if pieces and method < 2:
            yield item, b"".join(pieces)[:MAX_ITEM_BYTES]
