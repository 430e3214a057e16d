"""The folder that a dataset is packed into: whose it is while it is written, and what a killed import left there."""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from components.artifacts.dataset import DATASET_JSON, SPLITS
from components.verify_data.pack import QUARANTINE, SPOOL
from serving.platform.errors import StageError

REPORT: Final = "report.html"
_LEFT: Final = {REPORT, f"{QUARANTINE}.parquet", SPOOL}
"""What an import leaves behind that was refused."""
_OURS: Final = re.compile(
    rf"\.?({'|'.join((*SPLITS, QUARANTINE))})(-\d+.*)?\.(parquet|partial)|\.{re.escape(DATASET_JSON)}\.partial"
)


def is_unfinished(folder: Path) -> bool:
    """Whether an import is at work there, or was killed at it: what lies there may be a part of the dataset."""
    return (folder / SPOOL).is_dir() and not (folder / DATASET_JSON).exists()


def refuse_used(folder: Path) -> None:
    """Refuse a folder that holds anything but what a refused or a killed import left.

    Raises:
        StageError: says what to do.
    """
    if (folder / DATASET_JSON).exists():
        raise StageError(f"{folder}: already holds a dataset; give another folder or remove it")
    if not folder.is_dir():
        return
    unfinished = is_unfinished(folder)
    for path in folder.iterdir():
        if path.name not in _LEFT and not (unfinished and _OURS.fullmatch(path.name)):
            raise StageError(f"{folder}: is not empty; give a new folder for the dataset")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within: no other process packs into this folder, which is made where it is missing.

    The kernel lets go of the lock however the process ends.

    Raises:
        StageError: another process is at it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                f"{folder}: another import writes there now; wait for it, or give another folder"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        if made:
            # who had nothing to write leaves nothing
            with suppress(OSError):
                folder.rmdir()
        os.close(place)


def remove(folder: Path, names: Sequence[str]) -> None:
    """Take away what is there of these, be it one file or many."""
    for name in names:
        # a file that was being written when its process was killed is hidden
        partial = folder.glob(f".{name}-*.partial")
        shards = folder.glob(f"{name}-[0-9]*-of-[0-9]*.parquet")
        for path in [*partial, *shards, folder / f"{name}.parquet"]:
            path.unlink(missing_ok=True)
