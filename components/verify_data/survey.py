"""One pass over a source: every image read, decoded and measured; memory holds measurements, never images."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.artifacts.dataset import SPLITS
from components.artifacts.failure import StageError
from components.verify_data.inspection import SCHEMA, THUMBNAIL_PX, Inspection, inspect
from components.verify_data.parallel import ordered_map
from components.verify_data.rows import Batch
from components.verify_data.sources import Source

ROW_COLUMNS: Final = ("split", "name", "label", "generator")


class Sink(Protocol):
    """What wants the images as they pass."""

    def add(self, batch: Batch, inspection: Inspection) -> None:
        """Take one inspected batch."""
        ...


@dataclass(frozen=True, slots=True)
class Survey:
    """Measurements of all n rows of a source, in reading order."""

    table: pa.Table
    """`split`, `name`, `label`, `generator` and the columns of `inspection.SCHEMA`."""
    thumbnails: npt.NDArray[np.uint8]
    """Shape (n, 16, 16); mapped from a scratch file."""

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """A column as an array of length n; missing numbers are NaN, missing strings None."""
        values: npt.NDArray[np.generic] = self.table.column(name).to_numpy()
        return values

    @property
    def decoded(self) -> npt.NDArray[np.bool_]:
        """Which rows decode."""
        return np.asarray(self.table.column("problem").is_null().to_numpy(), bool)


def survey(
    source: Source,
    workers: int,
    limit: int = 0,
    sinks: Sequence[Sink] = (),
    advance: Callable[[int], None] | None = None,
) -> Survey:
    """Read and inspect every row of every split.

    Args:
        source: where the rows come from.
        workers: decoding processes; 0 means one for each core.
        limit: rows of each split, balanced between the classes; 0 reads all.
        sinks: are given each batch with its inspection, in order.
        advance: called with the number of rows done since the last call.
    """
    workers = workers or len(os.sched_getaffinity(0))
    tables: list[pa.RecordBatch] = []
    with tempfile.TemporaryFile(prefix="aidetect-thumbnails-") as scratch:
        for batch, inspection in ordered_map(_inspect, _batches(source, limit), workers):
            rows = [
                pa.DictionaryArray.from_arrays(
                    np.full(len(batch.names), SPLITS.index(batch.split), np.int8), list(SPLITS)
                ),
                pa.array(batch.names, pa.string()),
                pa.array(batch.labels, pa.int8()),
                pa.array(batch.generators, pa.string()),
            ]
            tables.append(pa.RecordBatch.from_arrays([*rows, *inspection.table.columns], [*ROW_COLUMNS, *SCHEMA.names]))
            scratch.write(inspection.thumbnails.tobytes())
            for sink in sinks:
                sink.add(batch, inspection)
            if advance is not None:
                advance(len(batch.names))
        if not tables:
            raise StageError(f"{source.uri}: holds no images")
        table = pa.Table.from_batches(tables).combine_chunks()
        scratch.flush()
        # the mapping keeps the unnamed file's pages readable after the file is closed
        shape = (table.num_rows, THUMBNAIL_PX, THUMBNAIL_PX)
        return Survey(table, np.memmap(scratch, np.uint8, "r", shape=shape))


def _inspect(batch: Batch) -> Inspection:
    return inspect(batch.data)


def _batches(source: Source, limit: int) -> Iterator[Batch]:
    for split in (name for name in SPLITS if name in source.splits):
        if limit:
            yield from _balanced(source.batches(split), limit)
        else:
            yield from source.batches(split)


def _balanced(batches: Iterator[Batch], limit: int) -> Iterator[Batch]:
    """The first `limit` rows with an equal share of each class; reading stops when both shares are full."""
    left = [limit - limit // 2, limit // 2]
    for batch in batches:
        rows = []
        for i, label in enumerate(batch.labels):
            if left[label]:
                left[label] -= 1
                rows.append(i)
        if rows:
            yield batch.take(rows)
        if not any(left):
            return
