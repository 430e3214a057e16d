"""Small documents that somebody else may have written: read whole, and no more of them than any of ours has."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

RECORD_BYTES: Final = 8 << 20
"""No record, manifest, evaluation or verdict of ours comes near."""


def read_record(path: Path, most_bytes: int = RECORD_BYTES) -> bytes:
    """All of a small file.

    Args:
        path: the file.
        most_bytes: what it may have at most.

    Raises:
        OSError: it is not there, may not be read, is larger, or is no plain file: a pipe might never end.
    """
    # opening a pipe that nobody writes to would wait for ever
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than any record of ours ({most_bytes >> 20} MiB)", str(path))
    return content


def tail(path: Path, most_bytes: int = 64 << 10) -> str:
    """The end of a log that may be of any size; what is not UTF-8 in it is replaced."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most_bytes))
        return file.read(most_bytes).decode(errors="replace")
