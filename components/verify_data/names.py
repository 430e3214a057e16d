"""Names of many files, in unnamed files: of ten million photos the names alone take gigabytes of memory."""

import heapq
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import IO, Final

SORTED: Final = 2**16
"""Names that are sorted at a time."""
_HELD: Final = 4096
"""Names that wait to be written."""
_READ_BYTES: Final = 2**14
_END: Final = b"\0"
"""Behind each name; no file's and no object's name has one."""


class Names:
    """Names in the order in which they were added; read as often as wanted, also while more are added."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._waiting: list[str] = []
        self._file: IO[bytes] | None = None
        self._bytes = 0
        self._count = 0
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Append a name.

        Raises:
            OSError: the disk has no room for it.
        """
        self._waiting.append(name)
        self._count += 1
        if len(self._waiting) >= _HELD:
            self.write()

    def write(self) -> int:
        """Write out what waits; how many bytes all names so far take."""
        if self._waiting:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="aidetect-names-")  # noqa: SIM115 - closed with this
                weakref.finalize(self, self._file.close)
            content = b"".join(name.encode("utf-8", "surrogateescape") + _END for name in self._waiting)
            self._file.write(content)
            self._file.flush()
            self._bytes += len(content)
            self._waiting = []
        return self._bytes

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        yield from self.written(0, self._bytes)
        yield from list(self._waiting)

    def written(self, start: int, end: int) -> Iterator[str]:
        """Names that were written out between two numbers of bytes."""
        rest = b""
        while self._file is not None and start < end:
            read = os.pread(self._file.fileno(), min(_READ_BYTES, end - start), start)
            start += len(read)
            *whole, rest = (rest + read).split(_END)
            yield from (name.decode("utf-8", "surrogateescape") for name in whole)


def sorted_names(names: Iterable[str]) -> Names:
    """Names in ascending order; so many at a time are sorted, and the runs merged."""
    stream, runs, ends = iter(names), Names(), [0]
    while some := sorted(islice(stream, SORTED)):
        for name in some:
            runs.add(name)
        ends.append(runs.write())
    return runs if len(ends) < 3 else Names(heapq.merge(*(runs.written(*span) for span in pairwise(ends))))
