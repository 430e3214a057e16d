"""Columns of Parquet files that somebody else wrote: weighed before they become Python's objects.

A text of a megabyte that a million rows repeat takes a megabyte on disk, and a million of them as Python's texts.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_BYTES: Final = 64 << 20
"""What the rows that are read at once may weigh: two thousand rows of 32 KiB each."""
_OBJECT_BYTES: Final = 64
"""Of a value beside its text, roughly: Python's object and its place in a list."""
_NESTED_ROWS: Final = 16
"""Of lists and structs, whose texts are written out before they can be weighed."""


def coded(schema: "pa.Schema", columns: Sequence[str] = ()) -> list[str]:
    """Columns of texts and bytes, for `read_dictionary`: read so, a repeated one is held once.

    Arrow reads none so that lie within a list or a struct.

    Args:
        schema: of the Parquet file.
        columns: that are meant; all where none is named.
    """
    return [str(field.name) for field in schema if _is_text(field.type) and (not columns or field.name in columns)]


def weight(batch: "pa.RecordBatch | pa.Table", each: int = _OBJECT_BYTES) -> int:
    """Bytes that the rows take as Python's objects, a repeated text counted for each of its rows.

    Args:
        batch: rows, their texts read as dictionaries.
        each: bytes that a value takes beside its text.
    """
    # a table's columns come in chunks, a batch's do not
    chunks = (chunk for column in batch.columns for chunk in getattr(column, "chunks", [column]))
    return sum(_weighed(chunk, each) for chunk in chunks)


def light_batches(
    file: "pq.ParquetFile", rows: int, columns: Sequence[str], most_bytes: int = BATCH_BYTES
) -> "Iterator[pa.RecordBatch]":
    """The rows of a file that was opened with `coded` texts, so many at a time.

    Args:
        file: the open file.
        rows: at most in a batch; fewer where the footer says that they are large.
        columns: that are read.
        most_bytes: what a batch may weigh.

    Raises:
        ValueError: one weighs more; names its rows. Also what pyarrow raises of a damaged file.
    """
    import pyarrow as pa

    start = 0
    if any(pa.types.is_nested(file.schema_arrow.field(name).type) for name in columns):
        rows = min(rows, _NESTED_ROWS)
    for batch in file.iter_batches(_at_once(file.metadata, rows, columns, most_bytes), columns=list(columns)):
        stop = start + batch.num_rows
        if (found := weight(batch)) > most_bytes:
            raise ValueError(
                f"rows {start}-{stop - 1} weigh {found >> 20:,} MiB in {', '.join(columns)[:200]}, more than names "
                f"have ({most_bytes >> 20} MiB)"
            )
        yield batch
        start = stop


def _at_once(metadata: "pq.FileMetaData", rows: int, columns: Sequence[str], most_bytes: int) -> int:
    """Rows of a batch that the footer lets expect within the bound, of the row group with the largest."""
    heaviest = 0.0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        chunks = (group.column(number) for number in range(group.num_columns))
        # a part of a column has the column's name and a dot before its own
        ours = (one for one in chunks if any(f"{one.path_in_schema}.".startswith(f"{name}.") for name in columns))
        size = sum(one.total_uncompressed_size for one in ours)
        heaviest = max(heaviest, size / max(1, group.num_rows))
    return int(min(rows, max(1, most_bytes // max(1.0, heaviest))))


def _weighed(array: Any, each: int) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, beside = array.type, each * len(array)
    if pa.types.is_dictionary(kind) and _is_text(kind):
        lengths = pc.cast(pc.binary_length(array.dictionary), pa.int64())
        return beside + int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return beside + sum(_weighed(child, each) for child in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return beside + _weighed(array.flatten(), each)
    return beside + int(array.nbytes)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)
