"""What several test processes need and one of them makes."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, filled by `make` in the first of pytest-xdist's workers that asks; the others wait for it.

    Whoever gets it only reads: it belongs to all workers.
    """
    base = factory.getbasetemp()
    # each worker's base is a folder of its own in that of the whole run
    root = base.parent if base.name.startswith("popen-") else base
    folder, done = root / f"shared-{name}", root / f"shared-{name}.done"
    with (root / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            # a folder without its mark is what a failed try left
            assert not folder.exists(), f"{name} could not be made; see the first test that asked for it"
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
