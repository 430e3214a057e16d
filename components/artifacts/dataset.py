"""The dataset artifact: what verify_data packs and train and evaluate read.

A folder with one Parquet file per split in Hugging Face image schema, or several of a large one
(`train-00000-of-00004.parquet`), and `dataset.json`. Encoded bytes are kept as
they came: re-encoding would destroy the traces the model looks for.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from serving.platform.errors import StageError, one_line
from serving.platform.frozen import Frozen
from serving.platform.records import read_record

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
            self.summary = DatasetSummary.model_validate_json(read_record(path))
        except (OSError, ValidationError) as error:
            raise StageError(f"{path}: damaged: {one_line(error)}; run verify_data again") from error

    def has(self, split: str) -> bool:
        """Whether the split exists and holds rows."""
        return split in self.summary.splits and self.summary.splits[split].rows > 0

    def paths(self, split: str) -> list[Path]:
        """Parquet files of a split, in order.

        Raises:
            StageError: there are none, or not all.
        """
        found = split_files(self.folder, split)
        wanted = (
            {f"{split}.parquet"} if len(found) < 2 else {shard_name(split, i, len(found)) for i in range(len(found))}
        )
        if {path.name for path in found} != wanted:
            raise StageError(f"{self.folder}: files of the split {split} are missing; run verify_data again")
        return found

    def table(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Columns of a split in memory (metadata columns are small; `image` is the whole data)."""
        return pa.concat_tables(pq.read_table(path, columns=columns) for path in self.paths(split))

    def batches(self, split: str, rows: int = 512, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Record batches of a split in stored order; memory stays flat in the split's size."""
        for path in self.paths(split):
            with open_parquet(path) as file:
                yield from file.iter_batches(batch_size=rows, columns=columns)

    def images(self, split: str, rows: int = 512) -> Iterator[bytes]:
        """Encoded bytes of a split's images in stored order."""
        for batch in self.batches(split, rows, ["image"]):
            yield from batch.column("image").field("bytes").to_pylist()

    def images_of(self, split: str, chosen: npt.NDArray[np.int64], rows: int = 512) -> Iterator[tuple[int, bytes]]:
        """`(row, encoded bytes)` of chosen rows, which ascend; row groups that hold none of them are not read."""
        first = 0
        for path in self.paths(split):
            with open_parquet(path) as file:
                for group in range(file.num_row_groups):
                    count = file.metadata.row_group(group).num_rows
                    if _between(chosen, first, first + count).size:
                        for batch in file.iter_batches(rows, row_groups=[group], columns=["image"]):
                            wanted = _between(chosen, first, first + len(batch))
                            images = batch.column("image").field("bytes").take(pa.array(wanted - first))
                            yield from zip(wanted.tolist(), images.to_pylist(), strict=True)
                            first += len(batch)
                    else:
                        first += count


def _between(ascending: npt.NDArray[np.int64], first: int, end: int) -> npt.NDArray[np.int64]:
    return ascending[slice(*np.searchsorted(ascending, [first, end]))]


def shard_name(split: str, number: int, count: int) -> str:
    """File name of one of several files of a split, as Hugging Face names them."""
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


def split_files(folder: Path, split: str) -> list[Path]:
    """What a folder holds of a split: the one file, or several in order."""
    alone = folder / f"{split}.parquet"
    return [alone] if alone.exists() else sorted(folder.glob(f"{split}-[0-9]*-of-[0-9]*.parquet"))


def open_parquet(path: Path, texts: Sequence[str] = ()) -> pq.ParquetFile:
    """A Parquet file whose row groups are read a little at a time.

    Arrow's own choice fetches the columns of the whole file before the first row and keeps them to the last.

    Args:
        path: the file.
        texts: columns that are read as dictionaries, which hold a repeated text once.
    """
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES, read_dictionary=list(texts))


def write_summary(folder: Path, summary: DatasetSummary) -> None:
    """Write `dataset.json`, last of all and whole or not at all: a folder without it is not a dataset."""
    document: dict[str, Any] = summary.model_dump(mode="json")
    partial = folder / f".{DATASET_JSON}.partial"
    try:
        partial.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        partial.replace(folder / DATASET_JSON)
    finally:
        partial.unlink(missing_ok=True)
