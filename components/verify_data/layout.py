"""What every kind of source agrees on: how splits are called, which are cut, and how many rows are taken at a time."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from components.artifacts.dataset import TEST, TRAIN, UNSEEN, VAL
from components.verify_data.classes import ClassNames, mapping
from serving.platform.errors import StageError

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

FOLDER: Final = "folder"
"""As `--source`: the folder that an image lies in."""
NONE: Final = "none"
"""As `--source`: no source, also where there is a column of that name."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which splits to cut, as shares of all images that come without one.

    Raises:
        StageError: a share that is none, or shares that leave nothing to train on.
    """

    test: float | None = None
    val: float | None = None

    def __post_init__(self) -> None:
        for name, share in (("--test", self.test), ("--val", self.val)):
            if share is not None and not 0 < share < 1:
                raise StageError(f"{name} {share:g}: give a share between 0 and 1, e.g. 0.2 for a fifth of the photos")
        if (self.test or 0) + (self.val or 0) >= 1:
            raise StageError(
                f"--test {self.test:g} and --val {self.val:g} leave nothing to train on; keep their sum below 1"
            )


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read beyond what it says of itself."""

    classes: ClassNames = field(default_factory=ClassNames)
    cut: Cut = field(default_factory=Cut)
    """Splits that will be cut, so need not be there."""
    source: str = ""
    """Column that names where an image came from; empty: the column `source`, if there is one; or `FOLDER`, `NONE`."""

    @property
    def column(self) -> str:
        """Name of the column that must be there; empty: none must."""
        return "" if self.source == NONE else self.source


def how_to_cut(uri: str, names: Sequence[str] = ()) -> str:
    """The command that cuts splits.

    Args:
        uri: what is to be cut.
        names: class names that nobody has mapped yet.
    """
    options = f" {mapping(names)} (or ai_generated)" if names else ""
    return f"aidetect data import {shlex.quote(uri)} -o packed --test 0.2 --val 0.1{options}"


def split_of(name: str) -> str | None:
    """The project's name of a split, None when unknown: `validation` -> `val`."""
    return SPLIT_NAMES.get(name.lower())
