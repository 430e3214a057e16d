"""Feeds of text: CSV, TSV and JSON lines, read as a stream of records; bounded in lines, columns and members."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TextIO

from serving.platform.errors import SourceError

Record = dict[str | None, Any]
"""A row's cells by their column. Under None: what cannot be told apart, so that the row names no photo for certain."""

JSON_LINES: Final = (".jsonl", ".ndjson")
_MAX_LINE: Final = 2**20
_MAX_COLUMNS: Final = 2000
_HEAD: Final = 100
"""Lines of JSON by which the members of all are known."""


def records(path: Path, handle: TextIO) -> tuple[Sequence[str], Iterator[Record]]:
    """Names of a feed's columns, and its rows.

    Raises:
        SourceError: it is no feed, or not to its end; also while it is read.
    """
    return _json_lines(path, handle) if path.suffix.lower() in JSON_LINES else _delimited(path, handle)


class _BoundedLines:
    """Lines of a text; those of one row, which quotes may hold together, have `_MAX_LINE` characters at most."""

    def __init__(self, path: Path, handle: TextIO) -> None:
        self._path, self._handle = path, handle
        self._held: list[str] = []
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._handle.readline(_MAX_LINE):
            self._held.append(line)
            self._length += len(line)
            if self._length >= _MAX_LINE:
                raise SourceError(f"{self._path}: a line is longer than {_MAX_LINE:,} characters; is this a feed?")
            yield line

    def row(self) -> list[str]:
        """The lines since the last call: those of the row that was read."""
        held, self._held, self._length = self._held, [], 0
        return held


def _delimited(path: Path, handle: TextIO) -> tuple[Sequence[str], Iterator[Record]]:
    bounded = _BoundedLines(path, handle)
    lines = iter(bounded)
    header = next(lines, "")
    delimiter = max(",;\t", key=header.count) if path.suffix.lower() == ".csv" else "\t"
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if len(names) > _MAX_COLUMNS:
        raise SourceError(f"{path}: has more than {_MAX_COLUMNS:,} columns; is this a feed?")

    def rows() -> Iterator[Record]:
        number = len(bounded.row()) + 1
        for row in csv.reader(lines, delimiter=delimiter):
            held = bounded.row()
            if len(held) > 1 or "".join(held).count('"') % 2:
                _closed(path, number, held, delimiter)
            number += len(held)
            if row:
                # cells beyond the last column: one before them was not quoted, and all after it have moved
                moved = any(cell.strip() for cell in row[len(names) :])
                record: Record = dict(zip(names, row, strict=False))
                record[None] = moved
                yield record

    return names, rows()


def _closed(path: Path, number: int, lines: list[str], delimiter: str) -> None:
    """Refuse a quote that nobody closed: it would swallow the rows after it.

    Raises:
        SourceError: it names the line where the row begins.
    """
    try:
        next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise SourceError(
            f'{path}: line {number}: a cell begins with a quote that is not closed; close it, or write "" for a quote '
            "in a quoted cell"
        ) from error


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


def _json_lines(path: Path, handle: TextIO) -> tuple[Sequence[str], Iterator[Record]]:
    def rows() -> Iterator[Record]:
        bounded = _BoundedLines(path, handle)
        for number, line in enumerate(bounded, 1):
            bounded.row()
            if not line.strip():
                continue
            moved = False
            try:
                row = json.loads(line, object_pairs_hook=_once)
            except _TwiceError:
                row, moved = json.loads(line), True
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path}: line {number} is not JSON") from error
            if not isinstance(row, dict):
                raise SourceError(f"{path}: line {number} is not a JSON object")
            if len(row) > _MAX_COLUMNS:
                raise SourceError(f"{path}: line {number} has more than {_MAX_COLUMNS:,} members; is this a feed?")
            yield {**row, None: moved}

    found = rows()
    head = list(islice(found, _HEAD))
    return list(dict.fromkeys(name for row in head for name in row if name is not None)), chain(head, found)
