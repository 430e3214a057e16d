"""Reading Qt's binary resource archives (`.rcc`), in which one of the packages keeps its photographs."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

COMPRESSED, FOLDER, ZSTD = 1, 2, 4
LARGEST_BYTES: Final = 64 << 20


def entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of one archive as pairs of path and content; entries packed with Zstandard are left out.

    Raises:
        ValueError: when the file is no archive of the format's version 1 to 3.
    """
    data = path.read_bytes()
    if data[:4] != b"qres":
        raise ValueError(f"{path} is no Qt resource archive")
    version, tree, content, names = struct.unpack(">IIII", data[4:20])
    if not 1 <= version <= 3:
        raise ValueError(f"{path} has the unknown format version {version}")
    size = 14 if version == 1 else 22
    yield from _walk(data, (tree, content, names, size), 0, "")


def _walk(data: bytes, at: tuple[int, int, int, int], index: int, prefix: str) -> Iterator[tuple[str, bytes]]:
    tree, content, names, size = at
    name_at, flags = struct.unpack_from(">IH", data, tree + index * size)
    name = ""
    if index:
        (length,) = struct.unpack_from(">H", data, names + name_at)
        name = data[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
    path = f"{prefix}/{name}" if prefix else name
    if flags & FOLDER:
        count, first = struct.unpack_from(">II", data, tree + index * size + 6)
        for child in range(first, first + count):
            yield from _walk(data, at, child, path)
        return
    (offset,) = struct.unpack_from(">I", data, tree + index * size + 10)
    (length,) = struct.unpack_from(">I", data, content + offset)
    body = data[content + offset + 4 : content + offset + 4 + length]
    if flags & ZSTD:
        return
    if flags & COMPRESSED:
        body = zlib.decompressobj().decompress(body[4:], LARGEST_BYTES)
    yield path, body
