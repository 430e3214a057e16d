"""What every kind of source agrees on: how splits are called, and how many rows are taken at a time."""

from typing import Final

from components.artifacts.dataset import TEST, TRAIN, UNSEEN, VAL

HUB_SCHEME: Final = "hf://"
BATCH_ROWS: Final = 256

SPLIT_NAMES: Final = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
    "unseen_generator": UNSEEN,
}


def split_of(name: str) -> str | None:
    """The project's name of a split, None when unknown: `validation` -> `val`."""
    return SPLIT_NAMES.get(name.lower())
