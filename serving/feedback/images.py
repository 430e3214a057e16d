"""Judged photos kept for the next training set (FEEDBACK_KEEP_IMAGES): by content, never more than the caps allow."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
WAITING_BYTES: Final = 64 * MIB
"""Photos that wait in memory for the disk; beyond it a photo is not kept."""
_ROOM: Final = 0.9
"""Where a cap is reached, so much of it stays: room is not made for one photo at a time."""


class KeptImages:
    """A folder of files named by the sha256 of their bytes."""

    def __init__(self, folder: Path, most_files: int, most_bytes: int, on_refused: Callable[[], None]) -> None:
        """Open the folder.

        Args:
            folder: made when missing.
            most_files: files kept at most.
            most_bytes: bytes kept at most.
            on_refused: told of each photo that found no room.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._most_files, self._most_bytes, self._on_refused = folder, most_files, most_bytes, on_refused
        self._waiting: OrderedDict[str, bytes] = OrderedDict()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._count()

    def offer(self, sha256: str, data: bytes) -> None:
        """Remember a photo for the next `write`; no I/O."""
        with self._lock:
            if sha256 in self._waiting or sha256 in self._sizes:
                return
            if self._waiting_bytes + len(data) <= WAITING_BYTES:
                self._waiting[sha256] = data
                self._waiting_bytes += len(data)
                return
        self._on_refused()

    def write(self, expendable: Callable[[], Iterable[str]]) -> None:
        """Write what waits.

        Args:
            expendable: names that may go where room is needed, the first first.

        Raises:
            OSError: a photo could not be written; it and the others still wait.
        """
        while self._waiting:
            sha256, data = next(iter(self._waiting.items()))
            if self._has_room(len(data)) or self._make_room(len(data), expendable()):
                partial = self._folder / f"{sha256}.{os.getpid()}.partial"
                try:
                    partial.write_bytes(data)
                    partial.rename(self._folder / sha256)
                except OSError:
                    with suppress(OSError):
                        partial.unlink(missing_ok=True)
                    raise
                self._sizes[sha256] = len(data)
            else:
                self._on_refused()
            with self._lock:
                self._waiting_bytes -= len(self._waiting.pop(sha256))

    def path(self, sha256: str) -> Path | None:
        """The file of a photo, where it is kept."""
        path = self._folder / sha256
        return path if path.is_file() else None

    def forget(self, sha256: str) -> None:
        """Delete a photo."""
        (self._folder / sha256).unlink(missing_ok=True)
        self._sizes.pop(sha256, None)

    def _has_room(self, size: int, share: float = 1.0) -> bool:
        kept = sum(self._sizes.values()) if len(self._sizes) < self._most_files else 0
        return len(self._sizes) < share * self._most_files and kept + size <= share * self._most_bytes

    def _make_room(self, size: int, expendable: Iterable[str]) -> bool:
        # other processes of this server write here, too
        self._count()
        for sha256 in expendable:
            if self._has_room(size, _ROOM):
                break
            if sha256 in self._sizes:
                self.forget(sha256)
        return self._has_room(size)

    def _count(self) -> None:
        found: dict[str, int] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".partial"):
                    continue
                with suppress(FileNotFoundError):  # another process forgets as well
                    found[entry.name] = entry.stat().st_size
        self._sizes = found
