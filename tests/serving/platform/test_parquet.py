"""Tables of strangers: what their texts weigh as Python's is known before it is made, whatever they weigh on disk."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.catalogue.config import CatalogueConfig
from components.catalogue.destination import MOST_READ, LocalDestination
from components.catalogue.entries import entries_of
from components.catalogue.plan import _SCHEMA, OWNER, Job, part_name, plan_name, read_group
from components.catalogue.rows import ROW_SCHEMA
from components.catalogue.summary import _part
from components.verify_data import tables
from components.verify_data.layout import Cut, Reading
from components.verify_data.sources import open_source
from serving.platform.errors import AidetectError
from serving.platform.parquet import BATCH_BYTES, coded, light_batches, weight

ROWS = [
    {"a": "aa", "b": ["x", None, "yy"], "c": b"12345"},
    {"a": "aa", "b": None, "c": b""},
    {"a": None, "b": [], "c": b"12345"},
    {"a": "\u00e4\u00f6\u4e2d", "b": ["yy"], "c": None},
    {"a": "aa", "b": ["x", "x"], "c": b"12345"},
]
"""Texts that repeat, within a row group and beyond."""


def size(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(size, value.values() if isinstance(value, dict) else value))
    return len(value.encode() if isinstance(value, str) else value or b"")


@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_texts_weigh_what_they_have_as_pythons(rows: list[dict[str, Any]], group: int, tmp_path: Path) -> None:
    path = tmp_path / "weighed.parquet"
    schema = pa.schema([("a", pa.string()), ("b", pa.list_(pa.large_string())), ("c", pa.binary())])
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=group)
    with pq.ParquetFile(path) as opened:
        texts = coded(opened.schema_arrow)
        assert texts == ["a", "c"]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        batches = list(light_batches(file, 3, ["a", "b", "c"]))
        assert [row for batch in batches for row in batch.to_pylist()] == rows
        # what is in no dictionary is weighed as Arrow holds it, with its offsets
        flat = ["a", "c"]
        assert sum(weight(batch.select(flat), each=0) for batch in batches) == weight(file.read(flat), each=0)
        assert weight(file.read(flat), each=0) == size([{name: row[name] for name in flat} for row in rows])
        assert sum(weight(batch, each=0) for batch in batches) >= size(rows)


def repeated(path: Path, schema: pa.Schema, rows: int, /, **cells: str) -> None:
    """A file of which every row has the same cells: a text stands in it once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = []
    for field in schema:
        value = (
            pa.array([cells[field.name].encode() if field.type == pa.binary() else cells[field.name]], field.type)
            if field.name in cells
            else None
        )
        columns.append(
            pa.nulls(rows, field.type)
            if value is None
            else pa.DictionaryArray.from_arrays(pa.array([0]).take(pa.array([0] * rows)), value)
        )
    table = pa.Table.from_arrays(columns, schema.names).replace_schema_metadata(schema.metadata)
    pq.write_table(table, path, compression="zstd", store_schema=bool(schema.metadata))


def names(*columns: str) -> pa.Schema:
    return pa.schema([(column, pa.string()) for column in columns])


LONG = "x" * (2 * BATCH_BYTES // 2048)
"""Of which the rows that are read at once are twice too heavy."""
JOB = Job(
    source="", model_version="", model_digest="", shard_photos=100_000, photos=0, shards=1, created_at="", settings={}
)


def table_of_names(folder: Path) -> None:
    repeated(folder / "t.parquet", names("path", "label", "generator"), 4096, path="a", label="real", generator=LONG)
    open_source(str(folder / "t.parquet"), Reading(cut=Cut(test=0.5)))


def dataset(folder: Path) -> None:
    schema = pa.schema([("image", pa.binary()), ("label", pa.string()), ("generator", pa.string())])
    for split in ("train", "test"):
        repeated(folder / f"{split}.parquet", schema, 4096, label="real", generator=4 * LONG)
    list(open_source(str(folder), Reading()).batches("train"))


def feed(folder: Path) -> None:
    repeated(folder / "feed.parquet", names("id", "image_link"), 4096, id="1", image_link=LONG)
    list(entries_of(str(folder / "feed.parquet"), CatalogueConfig()))


def named_photos(folder: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("image", pa.binary())])
    repeated(folder / "photos.parquet", schema, 4096, id=LONG)
    list(entries_of(str(folder / "photos.parquet"), CatalogueConfig()))


def plan(folder: Path) -> None:
    text = "x" * (MOST_READ // 100_000 + 1)
    repeated(folder / plan_name(0), _SCHEMA, 100_000, id="1", uri=text, kind="url", place="y")
    list(read_group(LocalDestination(folder), 0))


def part(folder: Path) -> None:
    schema = ROW_SCHEMA.with_metadata({OWNER: JOB.identity})
    repeated(folder / part_name(0), schema, 100_000, uri="x" * (MOST_READ // 100_000 + 1))
    _part(LocalDestination(folder), JOB, 0)


@pytest.mark.parametrize("read", [table_of_names, dataset, feed, named_photos, plan, part])
def test_a_text_that_every_row_repeats_is_refused_before_it_is_written_out(
    read: Callable[[Path], None], tmp_path: Path
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(AidetectError, match="MiB") as error:
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < BATCH_BYTES
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.parquet")) < 1 << 20


def test_names_of_a_table_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_TEXT", 100_000)
    cells = {"path": "a", "label": "real", "generator": "x" * 100}
    repeated(tmp_path / "t.parquet", names(*cells), 1200, **cells)
    with pytest.raises(
        AidetectError, match=r"not a readable Parquet file \(more than 0 MiB of names by row 0; split the table"
    ):
        open_source(str(tmp_path / "t.parquet"), Reading(cut=Cut(test=0.5)))
