"""Which parts of a split are looked at on their own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.artifacts.dataset import Dataset
from serving.detector.labels import LABELS, POSITIVE
from serving.platform.errors import StageError, one_line

CAMERA_NAMES: Final = ("", "camera", "real", "none")
"""Values of the generator column that mean that there was none: the class slice has those images already."""

SIDE_EDGES: Final = (64, 128, 256, 512, 1024)
"""Shorter side in pixels where one resolution band ends and the next begins."""

_COLUMNS: Final = ["image", "label", "generator", "source", "pixel_sha256", "width", "height"]


@dataclass(frozen=True)
class Frame:
    """What is known of a split's images besides their pixels, in stored order; each column has n entries."""

    split: str
    positive: npt.NDArray[np.bool_]
    path: list[str]
    generator: list[str]
    source: list[str]
    pixel_sha256: list[str]
    shorter_side_px: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positive)

    @classmethod
    def read(cls, dataset: Dataset, split: str) -> "Frame":
        """The metadata columns of a packed split.

        Raises:
            StageError: a file of it is missing, damaged or of another schema.
        """
        columns = ["image.path" if name == "image" else name for name in _COLUMNS]
        try:
            table = pa.Table.from_batches(dataset.batches(split, columns=columns)).select(_COLUMNS)
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are these
            reason = one_line(error)
            raise StageError(
                f"{dataset.folder}: the split {split} cannot be read: {reason}; run verify_data again"
            ) from error
        width, height = (np.asarray(table.column(c).to_numpy(), dtype=np.int64) for c in ("width", "height"))
        return cls(
            split=split,
            positive=np.asarray(table.column("label").to_numpy()) == LABELS.index(POSITIVE),
            path=_texts(table.column("image").combine_chunks().field("path")),
            generator=_texts(table.column("generator")),
            source=_texts(table.column("source")),
            pixel_sha256=_texts(table.column("pixel_sha256")),
            shorter_side_px=np.minimum(width, height),
        )

    @property
    def units(self) -> npt.NDArray[np.int64]:
        """Which images belong together, (n,): those from one source photograph, and copies of one picture."""
        return units_of(self)[0]

    @property
    def distinct(self) -> int:
        """Images with pixels of their own."""
        return len(set(self.pixel_sha256))

    def name_of(self, row: int) -> str:
        """How an image is called in messages: its split, row and file name."""
        return f"{self.split}/{row} ({Path(self.path[row]).name or 'unnamed'})"


def units_of(*frames: Frame) -> list[npt.NDArray[np.int64]]:
    """Which images belong together, of all frames at once: equal numbers are one unit, also across frames."""
    keys = [
        f"of {source}" if source else sha
        for frame in frames
        for source, sha in zip(frame.source, frame.pixel_sha256, strict=True)
    ]
    numbers = np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)[1]
    return np.split(numbers, np.cumsum([len(frame) for frame in frames])[:-1])


@dataclass(frozen=True)
class Group:
    """Rows of a frame that share one value of one dimension."""

    dimension: str
    name: str
    rows: npt.NDArray[np.int64]

    @property
    def key(self) -> str:
        """`dimension=name`."""
        return f"{self.dimension}={self.name}"


def groups(frame: Frame, min_images: int) -> list[Group]:
    """Parts of a split by class, generator, source and resolution.

    A class always is a part. Others need `min_images`, and a part that is the whole split says nothing new.
    """
    classes = np.where(frame.positive, LABELS[1], LABELS[0])
    found = _parts("class", classes, 1, len(frame) + 1)
    generators = np.array(["" if g.lower() in CAMERA_NAMES else g for g in frame.generator], dtype=object)
    found += _parts("generator", generators, min_images, len(frame) + 1)
    found += _parts("source", np.array(frame.source, dtype=object), min_images, len(frame))
    bands = np.array([_band(i) for i in range(len(SIDE_EDGES) + 1)], dtype=object)
    found += _parts(
        "resolution", bands[np.searchsorted(SIDE_EDGES, frame.shorter_side_px, "right")], min_images, len(frame)
    )
    return found


def _parts(dimension: str, values: npt.NDArray[np.object_], min_images: int, below: int) -> list[Group]:
    names, inverse = np.unique(values.astype(str), return_inverse=True)
    found = (Group(dimension, str(name), np.flatnonzero(inverse == i)) for i, name in enumerate(names) if name)
    return [group for group in found if min_images <= len(group.rows) < below]


def _band(index: int) -> str:
    if index == 0:
        return f"under {SIDE_EDGES[0]} px"
    if index == len(SIDE_EDGES):
        return f"{SIDE_EDGES[-1]} px and more"
    return f"{SIDE_EDGES[index - 1]}-{SIDE_EDGES[index] - 1} px"


def _texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    return [value or "" for value in column.to_pylist()]
