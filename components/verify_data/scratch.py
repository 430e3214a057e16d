"""Arrays of one item an image in unnamed files, and passes over them that hold a piece at a time.

What is known of each of ten million images does not fit into a container's memory, and need not. So an array as long
as the data is never made in memory: it lies in a mapped file, and each pass makes arrays as long as a piece.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]

PIECE: Final = 2**16
"""Items of a pass that are held in memory at a time: a few MB in each intermediate array."""
_SMALL_BYTES: Final = 2**16
"""An array of no more is made in memory."""
_MOST_PARTS: Final = 2**15

_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def scratch(dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
    """An array of zeros that goes with its last use.

    Raises:
        OSError: the disk has no room for it.
    """
    kind = np.dtype(dtype)
    size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    if size <= _SMALL_BYTES:
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile(prefix="aidetect-scratch-") as file:
        _reserve(file.fileno(), size)
        return mapped(file, kind, *shape)


def _reserve(file: int, size: int) -> None:
    """Give an empty file its length, and where the system can, its room on the disk."""
    if hasattr(os, "posix_fallocate"):
        # a disk that is full when a mapped page is first written ends the process without a word
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def mapped(file: IO[bytes], dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
    """What a file holds as an array; the mapping keeps an unnamed file after it is closed."""
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.zeros(shape, dtype)
    file.flush()
    mapping = mmap.mmap(file.fileno(), count * np.dtype(dtype).itemsize)
    _mappings.add(mapping)
    return np.frombuffer(mapping, dtype, count).reshape(shape)


def pieces(count: int, most: int = 0) -> Iterator[slice]:
    """`range(count)` a piece at a time; `most`: items of a piece, 0: `PIECE`."""
    step = most or PIECE
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))
        _let_go()


def _let_go() -> None:
    """Give back the memory of the pages that a piece was read from or written to; the files keep what they hold.

    The kernel would do so by itself, but only when it needs the memory: until then a process looks as large as its
    files, to people and to what ends processes that look large.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapping in list(_mappings):
            mapping.madvise(mmap.MADV_DONTNEED)


def filled(dtype: npt.DTypeLike, count: int, values: Callable[[slice], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """An array of what `values` gives for each piece."""
    found = scratch(dtype, count)
    for piece in pieces(count):
        found[piece] = values(piece)
    return found


def places(count: int, test: Callable[[slice], npt.NDArray[np.bool_]]) -> Rows:
    """Where in `range(count)` a test holds, ascending; it is asked twice."""
    found = scratch(np.intp, sum(int(np.count_nonzero(test(piece))) for piece in pieces(count)))
    start = 0
    for piece in pieces(count):
        here = np.flatnonzero(test(piece)) + piece.start
        found[start : start + len(here)] = here
        start += len(here)
    return found


class Appended:
    """An array whose length nobody knows before its end."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file: IO[bytes] | None = None
        self._count = 0

    def add(self, items: npt.NDArray[Any]) -> None:
        """Append items.

        Raises:
            OSError: the disk has no room for them.
        """
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="aidetect-scratch-")  # noqa: SIM115 - closed with this
            weakref.finalize(self, self._file.close)
        self._file.write(np.ascontiguousarray(items, self._dtype).tobytes())
        self._count += len(items)

    def array(self) -> npt.NDArray[Any]:
        """All so far; mapped."""
        return np.zeros(0, self._dtype) if self._file is None else mapped(self._file, self._dtype, self._count)


class Dealt:
    """The numbers of `range(count)` in parts, one part held at a time."""

    def __init__(self, count: int, parts: int, part_of: Callable[[slice], npt.NDArray[Any]]) -> None:
        """Deal them out.

        Args:
            count: how many.
            parts: into how many parts.
            part_of: the part of each of a piece; `parts` leaves it out. It is asked twice.
        """
        held = np.zeros(parts + 1, np.intp)
        for piece in pieces(count):
            held += np.bincount(part_of(piece), minlength=parts + 1)
        self._ends = np.cumsum(held[:parts])
        self._order = scratch(np.intp, count)
        next_place = np.cumsum(held) - held
        for piece in pieces(count):
            # two bytes are sorted by counting
            part = np.asarray(part_of(piece), np.uint16)
            order = np.argsort(part, kind="stable")
            found = np.bincount(part, minlength=parts + 1)
            ahead = np.repeat(next_place - (np.cumsum(found) - found), found)
            self._order[ahead + np.arange(len(part))] = order + piece.start
            next_place += found

    def __iter__(self) -> Iterator[Rows]:
        """The numbers of each part, ascending; parts that hold none are left out."""
        start = 0
        for end in self._ends.tolist():
            if end > start:
                yield np.array(self._order[start:end])
                _let_go()
            start = end


def taken(items: npt.NDArray[Any], rows: Rows) -> npt.NDArray[Any]:
    """`items[rows]` as an array of its own, of any length."""
    return filled(items.dtype, len(rows), lambda piece: items[rows[piece]])


def parts_of(count: int) -> int:
    """Into how many parts so many items are dealt, that one is about a piece."""
    return min(_MOST_PARTS, max(1, -(-count // PIECE)))


def by_leading_bytes(
    count: int,
    items: Callable[[slice], npt.NDArray[np.bytes_]],
    keep: Callable[[slice], npt.NDArray[np.bool_]] | None = None,
) -> Dealt:
    """Places of evenly spread byte strings of one length in ascending ranges of their values.

    Args:
        count: how many.
        items: those of a piece.
        keep: which of a piece are dealt out; None: all.
    """
    parts = parts_of(count)

    def part_of(piece: slice) -> npt.NDArray[np.intp]:
        found = np.ascontiguousarray(items(piece))
        pair = found.view(np.uint8).reshape(len(found), -1)[:, :2].astype(np.intp)
        part = (pair[:, 0] << 8 | pair[:, 1]) * parts >> 16
        return part if keep is None else np.where(keep(piece), part, parts)

    return Dealt(count, parts, part_of)
