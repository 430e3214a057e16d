"""Files of JSON lines that only grow: whole lines under a lock, on the disk before anybody is told, torn ends repaired.

A machine that dies, or a disk that is full, while a line is written leaves a part of it. That part was never
acknowledged: the next append takes it away, and readers pass over it until then.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from serving.platform.errors import StateError, one_line

MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line is none of ours: it is never written, and read as damage."""

_POLL_S: Final = 0.1
_log = logging.getLogger(__name__)

Document = TypeVar("Document", bound=BaseModel)


class LocalLines:
    """A file on this disk; any number of processes may append to it."""

    def __init__(self, path: Path, setting: str, mode: int = 0o644) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: the file. Its folder is made with the first line.
            setting: what names this place to the user, for messages: "set deploy.ledger_path".
            mode: permissions of a new file.
        """
        self.where = str(path)
        self._path, self._setting, self._mode = path, setting, mode

    def check(self) -> None:
        """See that a line could be added.

        Raises:
            StateError: the file cannot be opened for writing.
        """
        with self._locked():
            pass

    def append(self, line: bytes) -> None:
        """Add one line, given without its newline; it is on the disk when this returns.

        Raises:
            StateError: it could not be written whole; the file is then as it was.
        """
        if len(line) > MAX_LINE_BYTES or b"\n" in line:
            raise StateError(f"{self.where}: a record of {len(line):,} bytes ; at most {MAX_LINE_BYTES:,} make a line")
        with self._locked() as file:
            end = self._end(file)
            try:
                written = os.pwrite(file, line + b"\n", end)
                if written != len(line) + 1:
                    raise OSError(None, "the disk is full")
                os.fsync(file)
            except OSError as error:
                os.ftruncate(file, end)
                raise StateError(
                    f"{self.where}: {error.strerror}; nothing was recorded, make room and try again"
                ) from error

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines with their numbers, oldest first; blank ones are left out. Memory is that of one line.

        Raises:
            StateError: the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                # a line that is being written is not read by half
                fcntl.flock(file, fcntl.LOCK_SH)
                yield from _lines(iter(lambda: file.readline(MAX_LINE_BYTES + 2), b""), self.where)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"{self.where}: {error.strerror}; {self._setting}") from error

    def claim(self, line: bytes) -> bool:
        """Append to what was read last; who decides from it holds `exclusive`, so nobody else came between."""
        self.append(line)
        return True

    @contextmanager
    def exclusive(self, wait_s: float, busy: str) -> Iterator[None]:
        """Hold a lock beside the file while something is decided from its lines; readers and appends go on.

        Raises:
            StateError: somebody else holds it after `wait_s`, told by `busy`; or the folder cannot be written.
        """
        lock = self._path.with_name(f".{self._path.name}.lock")
        deadline = time.monotonic() + wait_s
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise StateError(f"{self.where}: {error.strerror}; {self._setting}") from error
        with file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise StateError(f"{busy} ({lock} is held); wait for it to end") from error
                    time.sleep(_POLL_S)
            yield

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, self._mode)
        except OSError as error:
            raise StateError(f"{self.where}: {error.strerror}; {self._setting}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _end(self, file: int) -> int:
        """Where the next line begins, after the end of the file was mended."""
        while end := os.fstat(file).st_size:
            start = max(0, end - MAX_LINE_BYTES - 1)
            tail = os.pread(file, end - start, start)
            good = mended(tail, self.where)
            if good == tail:
                return end
            if len(good) > len(tail):
                os.pwrite(file, b"\n", end)
            else:
                os.ftruncate(file, start + len(good))
        return 0


def mended(content: bytes, where: str) -> bytes:
    """`content` without a torn end; a last line that is whole only gets its newline."""
    torn = content[content.rfind(b"\n") + 1 :]
    if not torn:
        return content
    if _is_json(torn):
        return content + b"\n"
    _log.warning("%s: a torn line of %d bytes at the end was cut off: %.200r", where, len(torn), torn)
    return content[: -len(torn)]


def split(content: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a whole content, as `LocalLines.read` gives them."""
    return _lines(iter(content.splitlines(keepends=True)), where)


def documents(lines: Iterator[tuple[int, bytes]], kind: type[Document], where: str) -> Iterator[Document]:
    """Lines as documents. One that is none is reported to the log and passed over: it hides no other.

    Raises:
        StateError: there are lines and not one is a document; this is another file.
    """
    read, passed_over = 0, 0
    for number, line in lines:
        try:
            document = kind.model_validate_json(line)
        except ValidationError as error:
            passed_over += 1
            _log.warning("%s: line %d is no %s (%s); passed over", where, number, kind.__name__, one_line(error))
            continue
        read += 1
        yield document
    if passed_over and not read:
        raise StateError(
            f"{where}: none of the {passed_over} lines is a {kind.__name__}; repair or move the file, or name another"
        )


def _lines(found: Iterator[bytes], where: str) -> Iterator[tuple[int, bytes]]:
    number, skipping = 0, False
    for line in found:
        ended = line.endswith(b"\n")
        if skipping:  # the rest of a line that is too long to be ours
            skipping = not ended
            continue
        number += 1
        if len(line) > MAX_LINE_BYTES + 1:
            _log.warning("%s: line %d has more than %d bytes; passed over", where, number, MAX_LINE_BYTES)
            skipping = not ended
        elif not ended and not _is_json(line):
            _log.warning("%s: the last line is torn; passed over", where)
        elif line.strip():
            yield number, line.rstrip(b"\r\n")


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
