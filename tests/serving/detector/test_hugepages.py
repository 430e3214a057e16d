"""The heap moves to huge pages where the kernel can; memory that is only reserved does not."""

import ctypes
import mmap
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from serving.detector import hugepages
from tests.serving.processes import serve

MIB = 1024 * 1024
SCRIPT = f"""
import mmap
from pathlib import Path
from serving.detector import hugepages

def shown():
    lines = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return [int(lines[name].split()[0]) // 1024 for name in ("Rss", "AnonHugePages")]

kept = [b"x" * 100_000 for _ in range(320)]
reserved = mmap.mmap(-1, 64 * {MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
reserved[0] = 1
before = shown()
taken = hugepages.collapse() // {MIB}
print(*before, taken, *shown(), sum(piece == b"x" * 100_000 for piece in kept))
"""


def kernel_collapses() -> bool:
    """Whether this kernel gives huge pages on demand."""
    room = mmap.mmap(-1, 2 * hugepages.HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.write(bytes(len(room)))
    at = ctypes.addressof(ctypes.c_char.from_buffer(room))
    aligned = -(-at // hugepages.HUGE_BYTES) * hugepages.HUGE_BYTES
    libc = ctypes.CDLL(None)
    return bool(libc.madvise(ctypes.c_void_p(aligned), ctypes.c_size_t(hugepages.HUGE_BYTES), 25) == 0)


def test_what_is_used_moves_and_what_is_reserved_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=60)
    rss, huge, taken, rss_after, huge_after, whole = map(int, done.stdout.split())
    assert whole == 320, "nothing that was there is lost"
    assert rss_after - rss < 16, "of the 64 MiB that are only reserved, nothing is taken"
    if kernel_collapses():
        assert taken >= 24
        assert huge_after >= 24
    else:
        assert (taken, huge_after) == (0, huge)


def test_a_server_works_in_huge_pages(toy_bundle: Path, tmp_path: Path) -> None:
    def huge_kb(pid: int) -> int:
        found = re.search(r"AnonHugePages: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())
        assert found is not None
        return int(found[1])

    with serve(toy_bundle, tmp_path / "log", STARTED="yes") as server:
        until = time.monotonic() + 60
        # a kernel that cannot be asked may still do it by itself
        while kernel_collapses() and huge_kb(server.process.pid) < 8 * 1024:
            assert time.monotonic() < until, "in the background, soon after the start"
            time.sleep(0.1)
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_where_there_is_no_such_thing_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hugepages, "_SMAPS", tmp_path / "none")
    assert hugepages.collapse() == 0
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hugepages.collapse() == 0
