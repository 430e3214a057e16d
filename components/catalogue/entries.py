"""What a catalogue consists of: photos by path, by address, or by row of a Parquet file; read as a stream."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from components.catalogue.config import CatalogueConfig
from components.catalogue.destination import JOB_FILE, PARTS
from components.catalogue.merchant import LINKS, NAMES, items_of
from serving.platform.errors import SourceError, system_error

Kind = Literal["path", "url", "gs", "row", "none"]

PARQUET: Final = ".parquet"
FEEDS: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".xml", ".rss", ".atom")
_XML: Final = (".xml", ".rss", ".atom")
MERCHANT: Final = LINKS
"""Columns of a Google Merchant feed; each may hold several addresses, separated by commas."""
SINGLE: Final = ("image_url", "url", "uri", "path", "image_path", "file", "file_name", "filename")
_MAX_LINE: Final = 2**20
_MAX_COLUMNS: Final = 2000
_LINKS: Final = 20
"""Addresses taken from one cell at most; Google allows ten."""
_LONGEST: Final = 8192
_SHOWN: Final = 500
"""Characters of an address, and of a row's name, that are kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo to score."""

    id: str
    uri: str
    """What people know it by: path, address, or `file.parquet#row`."""
    kind: Kind
    place: bytes
    """Where its bytes lie: absolute path (as the file system spells it), address, `gs://` name, or the Parquet file; of
    the kind `none`, the reason for which there are none."""
    row: int = -1
    """Row of the Parquet file."""


def entries_of(source: str, config: CatalogueConfig, results: Path | None = None) -> Iterator[Entry]:
    """Every photo of a source on this disk, in an order that depends on the source alone.

    Args:
        source: folder, glob pattern, Parquet file or folder of Parquet files, or a feed.
        config: columns and roots.
        results: folder that is written meanwhile and may lie in the source; nothing in it is a photo.

    Raises:
        SourceError: nothing there, or no way to read it; also while it is read.
    """
    if any(c in source for c in "*?[") and not Path(source).exists():
        return _globbed(source)
    path = Path(source).expanduser()
    if path.is_dir():
        parquet = sorted(path.glob("*.parquet"))
        return _of_tables(parquet, config) if parquet else _of_folder(path, results)
    if not path.exists():
        raise SourceError(f"{source}: no such folder or file; give a folder, a pattern, a feed or gs://")
    if path.suffix.lower() == PARQUET:
        return _of_tables([path], config)
    if path.suffix.lower() in FEEDS:
        return _of_feed(path, config)
    if path.is_file():
        return iter([_file(path, path.name)])
    raise SourceError(f"{source}: not a folder, a file of photos or a feed ({', '.join(FEEDS)}, .parquet)")


def _file(path: Path, name: str) -> Entry:
    # a name that is not UTF-8 is kept apart from all others and stays writable to Parquet
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Entry(shown, shown, "path", os.fsencode(path.absolute()))


def _of_folder(root: Path, results: Path | None) -> Iterator[Entry]:
    """Every regular file below, whatever its suffix.

    Hidden ones, devices, folders met twice, and folders with the results of this job or an earlier one are left out.
    """
    seen: set[tuple[int, int]] = set()
    if results is not None and results.is_dir():
        own = results.stat()
        seen.add((own.st_dev, own.st_ino))

    def walk(folder: Path, prefix: str) -> Iterator[Entry]:
        try:
            here = folder.stat()
            if (here.st_dev, here.st_ino) in seen:
                return
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as listing:
                found = sorted((item for item in listing if not item.name.startswith(".")), key=lambda item: item.name)
        except OSError as error:
            raise SourceError(f"{folder}: cannot be listed ({error.strerror})") from error
        if prefix and {JOB_FILE, PARTS} <= {item.name for item in found}:
            return
        for item in found:
            if item.is_dir():
                yield from walk(Path(item.path), f"{prefix}{item.name}/")
            elif item.is_file():
                yield _file(Path(item.path), prefix + item.name)

    return walk(root, "")


def _globbed(pattern: str) -> Iterator[Entry]:
    count = 0
    # not pathlib: its glob takes no absolute pattern
    for name in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - see above
        path = Path(name)
        if path.is_file():
            count += 1
            yield _file(path, name)
    if not count:
        raise SourceError(f"{pattern}: no file matches")


def _of_tables(files: Sequence[Path], config: CatalogueConfig) -> Iterator[Entry]:
    for path in files:
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error
        with file:
            names = file.schema_arrow.names
            if image_column(file.schema_arrow) is not None and not config.columns:
                yield from _rows_of(path, file, config)
            else:
                batches = file.iter_batches(batch_size=2048, columns=_feed_columns(path, names, config))
                rows = (row for batch in batches for row in batch.to_pylist())
                yield from _of_records(path, names, rows, config)


def image_column(schema: pa.Schema) -> str | None:
    """Column of a Parquet file that holds encoded photos: bytes, or the hub's struct of `bytes` and `path`."""
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(field.name)
        if (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and field.name in ("image", "bytes", "photo"):
            return str(field.name)
    return None


def _rows_of(path: Path, file: pq.ParquetFile, config: CatalogueConfig) -> Iterator[Entry]:
    names = file.schema_arrow.names
    key = _id_column(path, names, config)
    place = os.fsencode(path.resolve())
    ids: Iterable[Any] = repeat(None, file.metadata.num_rows)
    if key:
        ids = (value for batch in file.iter_batches(8192, columns=[key]) for value in batch.column(0).to_pylist())
    for number, value in enumerate(ids):
        uri = f"{path.name}#{number}"
        yield Entry(uri if value is None else str(value)[:_SHOWN], uri, "row", place, number)


def _of_feed(path: Path, config: CatalogueConfig) -> Iterator[Entry]:
    try:
        if path.suffix.lower() in _XML:
            with path.open("rb") as content:
                yield from _of_records(path, NAMES, items_of(path, content), config)
            return
        with path.open(encoding="utf-8-sig", newline="") as handle:
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                yield from _of_lines(path, handle, config)
            else:
                yield from _of_delimited(path, handle, config)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8; save the feed as UTF-8") from error
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable table ({error})") from error
    except OSError as error:
        raise SourceError(f"{path}: {system_error(error)}") from error


class _BoundedLines:
    """Lines of a text; those of one row, which quotes may hold together, have `_MAX_LINE` characters at most."""

    def __init__(self, path: Path, handle: TextIO) -> None:
        self._path, self._handle, self._length = path, handle, 0

    def __iter__(self) -> Iterator[str]:
        while line := self._handle.readline(_MAX_LINE):
            self._length += len(line)
            if self._length >= _MAX_LINE:
                raise SourceError(f"{self._path}: a line is longer than {_MAX_LINE:,} characters; is this a feed?")
            yield line

    def next_row(self) -> None:
        """Count from nothing: the row that was read is done with."""
        self._length = 0


def _of_delimited(path: Path, handle: TextIO, config: CatalogueConfig) -> Iterator[Entry]:
    bounded = _BoundedLines(path, handle)
    lines = iter(bounded)
    header = next(lines, "")
    delimiter = max(",;\t", key=header.count) if path.suffix.lower() == ".csv" else "\t"
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if len(names) > _MAX_COLUMNS:
        raise SourceError(f"{path}: has more than {_MAX_COLUMNS:,} columns; is this a feed?")

    def rows() -> Iterator[dict[str, Any]]:
        bounded.next_row()
        for row in csv.reader(lines, delimiter=delimiter):
            bounded.next_row()
            if row:
                yield dict(zip(names, row, strict=False))

    yield from _of_records(path, names, rows(), config)


def _of_lines(path: Path, handle: TextIO, config: CatalogueConfig) -> Iterator[Entry]:
    def rows() -> Iterator[dict[str, Any]]:
        bounded = _BoundedLines(path, handle)
        for number, line in enumerate(bounded, 1):
            bounded.next_row()
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path}: line {number} is not JSON") from error
            if not isinstance(row, dict):
                raise SourceError(f"{path}: line {number} is not a JSON object")
            if len(row) > _MAX_COLUMNS:
                raise SourceError(f"{path}: line {number} has more than {_MAX_COLUMNS:,} members; is this a feed?")
            yield row

    records = rows()
    head = list(islice(records, 100))
    names = list(dict.fromkeys(name for row in head for name in row))
    yield from _of_records(path, names, (row for part in (head, records) for row in part), config)


def _feed_columns(path: Path, names: Sequence[str], config: CatalogueConfig) -> list[str]:
    links = link_columns(path, names, config)
    key = _id_column(path, names, config)
    return [*links, *([key] if key and key not in links else [])]


def link_columns(path: Path, names: Sequence[str], config: CatalogueConfig) -> list[str]:
    """Columns of a feed that name photos.

    Raises:
        SourceError: those of the configuration are missing, or none is known.
    """
    if config.columns:
        missing = [name for name in config.columns if name not in names]
        if missing:
            raise SourceError(f"{path}: no column {', '.join(missing)}; it has: {_listed(names)}")
        return list(config.columns)
    known = [name for name in MERCHANT if name in names] or [name for name in SINGLE if name in names][:1]
    if not known:
        raise SourceError(f"{path}: which column holds the photos? name it with --column; it has: {_listed(names)}")
    return known


def _id_column(path: Path, names: Sequence[str], config: CatalogueConfig) -> str:
    if config.id_column and config.id_column not in names:
        raise SourceError(f"{path}: no column {config.id_column}; it has: {_listed(names)}")
    return config.id_column or ("id" if "id" in names else "")


def _of_records(
    path: Path, names: Sequence[str], rows: Iterable[dict[str, Any]], config: CatalogueConfig
) -> Iterator[Entry]:
    links = link_columns(path, names, config)
    key = _id_column(path, names, config)
    root = Path(config.paths_root or path.parent).resolve()
    for number, row in enumerate(rows, 1):
        name = (str(row.get(key) or f"row {number}") if key else f"row {number}")[:_SHOWN]
        found = {column: _links(row.get(column), split=column in MERCHANT) for column in links}
        if not any(found.values()):
            yield Entry(name, "", "none", b"no_photo")
        for column, cell in found.items():
            for index, link in enumerate(cell[:_LINKS]):
                shown = name if column == links[0] and index == 0 else f"{name}#{column}/{index + 1}"
                yield _linked(shown[:_SHOWN], link, root)
            if len(cell) > _LINKS:
                yield Entry(f"{name}#{column}/{_LINKS + 1}"[:_SHOWN], "", "none", b"too_many_links")


def _links(cell: Any, split: bool) -> list[str]:
    """The addresses of a cell, and one more than are taken where there are more."""
    if cell is None:
        return []
    values = cell if isinstance(cell, list) else str(cell).split(",") if split else [str(cell)]
    named = (text[:_LONGEST] for value in values if (text := str(value).strip()))
    return list(islice(named, _LINKS + 1))


def _linked(name: str, link: str, root: Path) -> Entry:
    scheme = link.partition("://")[0].lower() if "://" in link else ""
    if scheme == "gs":
        return Entry(name, link, "gs", link.encode())
    if scheme:
        # what is no http address is refused by the fetch itself, with its reason
        return Entry(name, link, "url", link.encode())
    return Entry(name, link, "path", _inside(root, link))


def _inside(root: Path, link: str) -> bytes:
    """The file that a feed names; empty where it lies outside of `root`, links followed: feeds are not trusted."""
    try:
        place = (root / PurePosixPath(link)).resolve()
    except (OSError, ValueError, RuntimeError):
        return b""
    return os.fsencode(place) if place.is_relative_to(root) else b""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:20]) or "none"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
