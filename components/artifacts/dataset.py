"""The dataset artifact: what verify_data packs and train and evaluate read.

A folder with one Parquet file per split in Hugging Face image schema, and `dataset.json`. Encoded bytes are kept as
they came: re-encoding would destroy the traces the model looks for.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from serving.platform.errors import StageError, one_line
from serving.platform.frozen import Frozen

DATASET_JSON: Final = "dataset.json"
TRAIN: Final = "train"
VAL: Final = "val"
TEST: Final = "test"
UNSEEN: Final = "unseen_generator"
"""Optional split of images by generators that no other split holds; reported apart, never gated."""

SPLITS: Final = (TRAIN, VAL, TEST, UNSEEN)

_READ_AHEAD_BYTES: Final = 2**16

SCHEMA: Final = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("generator", pa.string()),
        ("source", pa.string()),
        ("pixel_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""Columns of every packed split. `pixel_sha256` is over the decoded RGB pixels; sizes are pixels as displayed."""


class SplitSummary(Frozen):
    """Counts of one packed split."""

    rows: int
    by_class: dict[str, int]
    fingerprint: str
    """sha256 over the sorted (pixel_sha256, label) pairs of the split."""


class DatasetSummary(Frozen):
    """`dataset.json`: what the packed dataset holds."""

    schema_version: int = 1
    source_uri: str
    fingerprint: str
    """sha256 over the splits' names and fingerprints: equal exactly when the data is equal."""
    splits: dict[str, SplitSummary]
    quarantined: int = 0
    labels: dict[str, str] = {}
    """Class names of one's own that were mapped, each with its class."""


class Dataset:
    """Reader of a packed dataset folder.

    Raises:
        StageError: it is none, or its summary is damaged.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / DATASET_JSON
        if not path.is_file():
            raise StageError(
                f"{folder}: no {DATASET_JSON}; not a dataset packed by verify_data, make one with: aidetect data import"
            )
        self.folder = folder
        try:
            self.summary = DatasetSummary.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StageError(f"{path}: damaged: {one_line(error)}; run verify_data again") from error

    def has(self, split: str) -> bool:
        """Whether the split exists and holds rows."""
        return split in self.summary.splits and self.summary.splits[split].rows > 0

    def path(self, split: str) -> Path:
        """Parquet file of a split."""
        return self.folder / f"{split}.parquet"

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Columns of a split in memory (metadata columns are small; `image` is the whole data)."""
        return pq.read_table(self.path(split), columns=columns)

    def batches(self, split: str, rows: int = 512, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Record batches of a split in stored order; memory stays flat in the split's size."""
        with open_parquet(self.path(split)) as file:
            yield from file.iter_batches(batch_size=rows, columns=columns)

    def images(self, split: str, rows: int = 512) -> Iterator[bytes]:
        """Encoded bytes of a split's images in stored order."""
        for batch in self.batches(split, rows, ["image"]):
            yield from batch.column("image").field("bytes").to_pylist()


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file whose row groups are read a little at a time.

    Arrow's own choice fetches the columns of the whole file before the first row and keeps them to the last.
    """
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES)


def write_summary(folder: Path, summary: DatasetSummary) -> None:
    """Write `dataset.json`, last of all: a folder without it is not a dataset."""
    document: dict[str, Any] = summary.model_dump(mode="json")
    (folder / DATASET_JSON).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
