"""The memory a process works in, moved to huge pages: fewer address lookups while a network streams its weights."""

import ctypes
import re
import sys
from pathlib import Path
from typing import Final

HUGE_BYTES: Final = 2 * 1024 * 1024
"""Size of a huge page on x86-64, and on ARM with pages of 4 kB."""
DENSE: Final = 0.5
"""Memory used less than this stays as it is: on huge pages it would take what it only reserves (threads' stacks)."""

_MADV_COLLAPSE: Final = 25
_SMAPS: Final = Path("/proc/self/smaps")
_REGION: Final = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) rw-p \w+ 00:00 0 *(?:\[heap\])?\n(?:\w+: +\d+ kB\n)*?Rss: +(\d+) kB$", re.MULTILINE
)
"""Start, end and resident kB of a private, writable, anonymous region."""


def collapse() -> int:
    """Move this process's heap, as it stands, to huge pages; returns the bytes that the kernel took.

    Linux from 6.1 on does it whatever its setting for huge pages, in 1 to 10 ms a megabyte; other threads go on.
    Elsewhere, and where the kernel refuses, nothing happens. Source: madvise(2), MADV_COLLAPSE.
    """
    if sys.platform != "linux":
        return 0
    try:
        smaps = _SMAPS.read_text()
    except OSError:
        return 0
    libc = ctypes.CDLL(None)
    taken = 0
    for found in _REGION.finditer(smaps):
        start, end, used = int(found[1], 16), int(found[2], 16), int(found[3]) * 1024
        first, last = -(-start // HUGE_BYTES) * HUGE_BYTES, end // HUGE_BYTES * HUGE_BYTES
        if first < last and used >= DENSE * (end - start):
            refused = libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_COLLAPSE)
            taken += 0 if refused else last - first
    return taken
