"""One pass over a source: every image read, decoded and measured; memory holds a few batches, whatever passes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from components.artifacts.dataset import SPLITS
from components.verify_data.inspection import Inspection, inspect
from components.verify_data.measurements import Recorder, Survey
from components.verify_data.parallel import ordered_map
from components.verify_data.rows import Batch
from components.verify_data.sources import Source
from serving.platform.cores import usable_cores
from serving.platform.errors import StageError


class Sink(Protocol):
    """What wants the images as they pass."""

    def add(self, batch: Batch, inspection: Inspection) -> None:
        """Take one inspected batch."""
        ...


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
    workers = workers or usable_cores()
    with Recorder() as recorder:
        for batch, inspection in ordered_map(_inspect, _batches(source, limit), workers):
            for sink in (recorder, *sinks):
                sink.add(batch, inspection)
            if advance is not None:
                advance(len(batch.names))
        if not recorder.count:
            raise StageError(f"{source.uri}: holds no images")
        return recorder.survey()


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
