"""Tables that say where each image lies and which class it is: CSV, TSV, or Parquet without the images themselves."""

import csv
import io
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.dataset import TRAIN
from components.verify_data.folders import FileSource
from components.verify_data.layout import FOLDER, SPLIT_NAMES, Reading, how_to_cut, split_of
from components.verify_data.names import Names
from components.verify_data.rows import UNKNOWN_GENERATOR
from components.verify_data.skipped import shown
from components.verify_data.stores import LocalStore
from serving.platform.errors import StageError, UnknownLabelError, one_line
from serving.platform.parquet import coded, light_batches, weight

PARQUET: Final = ".parquet"
TABLES: Final = (".csv", ".tsv", PARQUET)
MAX_ROWS: Final = 5_000_000
_PATHS: Final = ("path", "image_path", "file", "file_name", "filename", "image", "img")
_LABELS: Final = ("label", "labels", "class")
_ROW_BYTES: Final = 200
_MOST_TEXT: Final = 2 * MAX_ROWS * _ROW_BYTES
"""Bytes of a Parquet table's names, which are kept while it is read."""
_BATCH_ROWS: Final = 2048
_NAMED: Final = 3

_SEPARATOR: Final = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE)

_Rows = Callable[[Sequence[str]], Iterator[tuple[str, dict[str, Any]]]]
"""Gives the rows, of Parquet with these columns alone."""


class _Row(NamedTuple):
    label: int
    generator: str
    source: str


def lists_paths(path: Path) -> bool:
    """Whether a Parquet file names images in place of holding them.

    Raises:
        StageError: the file is not readable.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{shown(str(path))}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    column = next((schema.field(name) for name in ("image", "img") if name in schema.names), None)
    if column is None:
        return True
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


class TableSource(FileSource):
    """One image a row: a path from the table's folder, a class name, and, if there are such columns, split and source.

    Raises:
        StageError: a column is missing, a file is not there, a class name is not known; names the line.
    """

    def __init__(self, store: LocalStore, path: Path, reading: Reading) -> None:
        super().__init__(store)
        self.uri = shown(str(path))
        self._folder = store.root
        self._reading = reading
        self._rows: dict[str, _Row] = {}
        self._missing: list[str] = []
        names, rows_of = _read(path, self.uri)
        if reading.source == FOLDER:
            raise StageError(f"{self.uri}: --source {FOLDER} is for folders of images; name a column")
        self._column = reading.column.strip().lower() or "source"
        if reading.column and self._column not in names:
            raise StageError(f"{self.uri}: no column {reading.column!r} (--source); found {', '.join(names)}")
        where, what = self._one_of(_PATHS, names, "path"), self._one_of(_LABELS, names, "label")
        has_split = "split" in names
        if not has_split and reading.cut.test is None:
            raise StageError(f"{self.uri}: has no column 'split'; cut splits: {how_to_cut(self.uri)}")
        for line, row in rows_of((where, what, "split", "generator", self._column)):
            split = self._split(row.get("split"), line) if has_split else TRAIN
            self._take(line, row, (row.get(where), row.get(what)), split)
        if self._missing:
            more = f"; and {len(self._missing) - _NAMED} more" if len(self._missing) > _NAMED else ""
            hint = f"; paths are meant from {shown(str(self._folder))}"
            if "\\" in self._missing[0] and "/" not in self._missing[0]:
                hint = "; write / in place of \\"
            raise StageError(f"{self.uri}: no such image: {'; '.join(self._missing[:_NAMED])}{more}{hint}")
        if not self._rows:
            raise StageError(f"{self.uri}: names no images")

    def _one_of(self, candidates: Sequence[str], names: Sequence[str], what: str) -> str:
        for name in candidates:
            if name in names:
                return name
        looked, found = ", ".join(candidates), ", ".join(name[:80] for name in names[:20]) or "nothing"
        fix = "name it in the table's first line"
        if self.uri.endswith(PARQUET):
            fix = "rename it" if what == "label" else "rename it, to `image` if it holds the photos themselves"
        raise StageError(f"{self.uri}: no {what} column (looked for {looked}; found {found}); {fix}")

    def _split(self, value: Any, line: str) -> str:
        split = split_of(str(value or "").strip())
        if split is None:
            known = ", ".join(sorted(SPLIT_NAMES))
            raise StageError(f"{self.uri} {line}: {str(value or '')!r} names no split; known: {known}")
        return split

    def _take(self, line: str, row: dict[str, Any], cells: tuple[Any, Any], split: str) -> None:
        path, label = (str(cell).strip() if cell is not None else "" for cell in cells)
        if not path or not label:
            raise StageError(f"{self.uri} {line}: has no {'path' if not path else 'label'}")
        if "://" in path:
            raise StageError(
                f"{self.uri} {line}: {path[:80]} is an address; fetch the photos first and name their files"
            )
        try:
            found = _Row(
                self._reading.classes.id(label),
                str(row.get("generator") or UNKNOWN_GENERATOR),
                str(row.get(self._column) or ""),
            )
        except UnknownLabelError as error:
            raise StageError(f"{self.uri} {line}: {error}") from error
        if ".." not in path:
            # `./a.jpg` and `a.jpg` are one photo; what a link's parent is, only the disk knows
            path = posixpath.normpath(path)
        known = self._rows.setdefault(path, found)
        if known.label != found.label:
            raise StageError(f"{self.uri} {line}: {shown(path)} stands under both classes; keep the right row")
        if known is not found:
            raise StageError(f"{self.uri} {line}: {shown(path)} is named twice; keep one row")
        if "\0" in path or not (self._folder / path).is_file():
            self._missing.append(f"{shown(path)} ({line})")
        self._images.setdefault(split, Names()).add(path)

    def _meaning(self, path: str) -> tuple[int, str, str]:
        return self._rows[path]


def _read(path: Path, uri: str) -> tuple[list[str], _Rows]:
    """Column names, and what gives the rows with what a person calls their place."""
    if path.suffix.lower() == PARQUET:
        return _of_parquet(path, uri)
    try:
        # a table, not images: what it holds is bounded by its rows
        if path.stat().st_size > MAX_ROWS * _ROW_BYTES:
            raise StageError(f"{uri}: is larger than {MAX_ROWS * _ROW_BYTES // 2**20:,} MiB; write it as Parquet")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(f"{uri}: not UTF-8; save the table as UTF-8") from error
    said = _SEPARATOR.match(text)  # Excel's own first line
    text = text[said.end() :] if said else text
    header = text.partition("\n")[0]
    delimiter = said[1] if said else "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise StageError(f"{uri}: not a readable table ({one_line(error)})") from error
    _all_differ(names, uri)
    return names, lambda _: _records(reader, names, uri, 1 if said else 0)


def _records(reader: Any, names: Sequence[str], uri: str, before: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a text, each with its line; `before`: lines that were read before the header."""
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                raise StageError(
                    f"{uri} line {reader.line_num + before}: {len(row)} cells where the header names {len(names)}"
                )
            yield f"line {reader.line_num + before}", dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise StageError(f"{uri} line {reader.line_num + before}: not a readable table ({one_line(error)})") from error


def _of_parquet(path: Path, uri: str) -> tuple[list[str], _Rows]:
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows > MAX_ROWS:
            raise StageError(f"{uri}: names more than {MAX_ROWS:,} images; split the table")
        schema = file.schema_arrow
    named = {str(name): str(name).lower() for name in schema.names}
    _all_differ([str(name).lower() for name in schema.names], uri)

    def rows(columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        read = [name for name, lower in named.items() if lower in columns]
        number = size = 0
        try:
            with pq.ParquetFile(path, read_dictionary=coded(schema, read)) as table:
                for batch in light_batches(table, _BATCH_ROWS, read):
                    # the texts of all rows are kept, one that is repeated as often as it is
                    if (size := size + weight(batch, each=0)) > _MOST_TEXT:
                        raise ValueError(
                            f"more than {_MOST_TEXT >> 20:,} MiB of names by row {number}; split the table"
                        )
                    for row in batch.rename_columns([named[name] for name in batch.schema.names]).to_pylist():
                        yield f"row {number}", row
                        number += 1
        except (pa.ArrowException, ValueError, OSError) as error:
            # also of what stands behind a good end of the file: a damaged or encrypted column
            raise StageError(f"{uri}: not a readable Parquet file ({one_line(error)})") from error

    return list(named.values()), rows


def _all_differ(names: Sequence[str], uri: str) -> None:
    if len(set(names)) < len(names):
        raise StageError(f"{uri}: two columns have one name ({', '.join(names[:20])})")
