"""What several tests need and one of them makes."""

import fcntl
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

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


def made_once(make: Callable[..., Any], variables: tuple[str, ...]) -> Callable[..., Any]:
    """What `make` gives, once for each set of arguments and values of the environment's `variables`."""
    kept: dict[Hashable, Any] = {}

    def kept_or_made(*given: Hashable, **named: Hashable) -> Any:
        key = given, tuple(sorted(named.items())), tuple(map(os.environ.get, variables))
        if key not in kept:
            kept[key] = make(*given, **named)
        return kept[key]

    return kept_or_made
