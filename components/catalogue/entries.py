"""What a catalogue consists of: photos by path, by address, or by row of a Parquet file; read as a stream."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from components.catalogue.config import CatalogueConfig
from components.catalogue.feeds import JSON_LINES, records
from components.catalogue.folders import MAGIC, files_below, files_of
from components.catalogue.merchant import LINKS, NAMES, items_of
from serving.detector.image import HEAD_BYTES, kind_of
from serving.platform.errors import SourceError, system_error
from serving.platform.parquet import coded, light_batches

Kind = Literal["path", "url", "gs", "row", "none"]

PARQUET: Final = ".parquet"
_XML: Final = (".xml", ".rss", ".atom")
FEEDS: Final = (".csv", ".tsv", ".txt", *JSON_LINES, *_XML)
MERCHANT: Final = LINKS
"""Columns of a Google Merchant feed; each may hold several addresses, separated by commas."""
SINGLE: Final = ("image_url", "url", "uri", "path", "image_path", "file", "file_name", "filename")
_BATCH_ROWS: Final = 2048
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
    if any(c in source for c in MAGIC) and not Path(source).exists():
        return _of_files(files_of(source, results), config)
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_files(files_below(path, results), config)
    if not path.exists():
        raise SourceError(f"{source}: no such folder or file; give a folder, a pattern, a feed or gs://")
    if not path.is_file():
        raise SourceError(f"{source}: is a pipe or device, which cannot be read twice; save it as a file first")
    if path.suffix.lower() == PARQUET:
        return _of_table(path, path.name, config)
    if path.suffix.lower() in FEEDS:
        return _of_feed(path, config)
    return iter([_only_photo(path)])


def _only_photo(path: Path) -> Entry:
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
    except OSError as error:
        raise SourceError(f"{path}: {system_error(error)}") from error
    if not kind.picture:
        raise SourceError(
            f"{path}: is {kind.article}, neither a photo nor a feed ({', '.join(FEEDS)}, {PARQUET}); unpack it, or "
            "save it as one of these"
        )
    return _file(path, path.name)


def _file(path: Path, name: str) -> Entry:
    # a name that is not UTF-8 is kept apart from all others and stays writable to Parquet
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Entry(shown, shown, "path", os.fsencode(path.absolute()))


def _of_files(found: Iterable[tuple[Path, str]], config: CatalogueConfig) -> Iterator[Entry]:
    """Each file, as it lies in a folder; a Parquet file stands for its rows."""
    for path, shown in found:
        if path.suffix.lower() == PARQUET:
            yield from _of_table(path, shown, config)
        else:
            yield _file(path, shown)


def _of_table(path: Path, shown: str, config: CatalogueConfig) -> Iterator[Entry]:
    try:
        with pq.ParquetFile(path) as opened:
            schema = opened.schema_arrow
        photos = image_column(schema) is not None and not config.columns
        key = _id_column(path, schema.names, config)
        named = [key] if key else []
        wanted = named if photos else list(dict.fromkeys([*link_columns(path, schema.names, config), *named]))
        with pq.ParquetFile(path, read_dictionary=coded(schema, wanted) if wanted else []) as file:
            if photos:
                yield from _rows_of(path, shown, file, key)
            else:
                rows = (row for batch in light_batches(file, _BATCH_ROWS, wanted) for row in batch.to_pylist())
                yield from _of_records(path, schema.names, rows, config)
    except (pa.ArrowException, ValueError, OSError) as error:
        # also of what stands behind a good end of the file: a damaged or encrypted column
        raise SourceError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error


def image_column(schema: pa.Schema) -> str | None:
    """Column of a Parquet file that holds encoded photos: bytes, or the hub's struct of `bytes` and `path`."""
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(field.name)
        if (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and field.name in ("image", "bytes", "photo"):
            return str(field.name)
    return None


def _rows_of(path: Path, shown: str, file: pq.ParquetFile, key: str) -> Iterator[Entry]:
    place = os.fsencode(path.resolve())
    ids: Iterable[Any] = repeat(None, file.metadata.num_rows)
    if key:
        ids = (value for batch in light_batches(file, _BATCH_ROWS, [key]) for value in batch.column(0).to_pylist())
    for number, value in enumerate(ids):
        uri = f"{_text(shown)}#{number}"
        yield Entry(uri if value is None else _text(value)[:_SHOWN], uri, "row", place, number)


def _of_feed(path: Path, config: CatalogueConfig) -> Iterator[Entry]:
    try:
        if path.suffix.lower() in _XML:
            with path.open("rb") as content:
                yield from _of_records(path, NAMES, items_of(path, content), config)
            return
        with path.open(encoding="utf-8-sig", newline="") as handle:
            yield from _of_records(path, *records(path, handle), config)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8; save the feed as UTF-8") from error
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable table ({error})") from error
    except OSError as error:
        raise SourceError(f"{path}: {system_error(error)}") from error


def link_columns(path: Path, names: Sequence[str], config: CatalogueConfig) -> list[str]:
    """Columns of a feed that name photos.

    Raises:
        SourceError: those of the configuration are missing, none is known, or two have one name.
    """
    if config.columns:
        missing = [name for name in config.columns if name not in names]
        if missing:
            raise SourceError(f"{path}: no column {', '.join(missing)}; it has: {_listed(names)}")
        return [_one_of_its_name(path, names, name) for name in config.columns]
    for known, most in ((MERCHANT, len(MERCHANT)), (SINGLE, 1)):
        found = [name for wanted in known for name in names if _attribute(name) == wanted]
        if found:
            return [_one_of_its_name(path, names, name) for name in found[:most]]
    raise SourceError(f"{path}: which column holds the photos? name it with --column; it has: {_listed(names)}")


def _attribute(name: str) -> str:
    """A column's name as Google spells it: spreadsheets write `Image link`."""
    return name.strip().lower().replace(" ", "_")


def _one_of_its_name(path: Path, names: Sequence[str], name: str) -> str:
    if sum(other == name for other in names) > 1:
        raise SourceError(f"{path}: two columns are named {name[:40]}; rename one")
    return name


def _id_column(path: Path, names: Sequence[str], config: CatalogueConfig) -> str:
    if config.id_column and config.id_column not in names:
        raise SourceError(f"{path}: no column {config.id_column}; it has: {_listed(names)}")
    return config.id_column or next((name for name in names if _attribute(name) == "id"), "")


def _of_records(
    path: Path, names: Sequence[str], rows: Iterable[Mapping[Any, Any]], config: CatalogueConfig
) -> Iterator[Entry]:
    links = link_columns(path, names, config)
    key = _id_column(path, names, config)
    several = {column for column in links if _attribute(column) in MERCHANT}
    root = Path(config.paths_root or path.parent).resolve()
    for number, row in enumerate(rows, 1):
        name = (_text(row.get(key) or f"row {number}") if key else f"row {number}")[:_SHOWN]
        if row.get(None):
            yield Entry(name, "", "none", b"row_malformed")
            continue
        found = {column: _links(row.get(column), split=column in several) for column in links}
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
    values = cell if isinstance(cell, list) else _text(cell).split(",") if split and cell is not None else [cell]
    # not a number: what tables of numbers write for nothing
    given = (value for value in values if value is not None and not (isinstance(value, float) and math.isnan(value)))
    named = (text[:_LONGEST] for value in given if (text := _text(value).strip()))
    return list(islice(named, _LINKS + 1))


def _text(value: Any) -> str:
    """A cell as text that can be written: halves of characters, and bytes that are no UTF-8, as escapes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


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
