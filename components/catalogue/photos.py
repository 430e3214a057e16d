"""The bytes of a shard's photos, from wherever they lie, a few read or fetched ahead; all bounded."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from components.catalogue.config import CatalogueConfig
from components.catalogue.entries import Entry, image_column
from components.platform.ahead import in_order
from serving.fetch.client import Fetcher, FetchLimits
from serving.platform.cloud_storage import SCHEME
from serving.platform.errors import FetchRefusedError, StageError

_AHEAD: Final = 4
"""Photos waiting for each fetching thread; bounds memory at `fetch_threads * _AHEAD * max_file_bytes`."""


class UnreadPhotoError(Exception):
    """A photo whose bytes could not be had; `reason` goes into its row."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Photos:
    """Reads photos for one worker process."""

    def __init__(self, config: CatalogueConfig, workers: int) -> None:
        """Prepare to read.

        Args:
            config: bounds.
            workers: how many processes share the manners towards one host.
        """
        self._config = config
        self._pool = ThreadPoolExecutor(config.fetch_threads, thread_name_prefix="fetch")
        self._fetched_table: tuple[bytes, BinaryIO] | None = None
        self._fetcher = Fetcher(
            FetchLimits(
                max_bytes=config.max_file_bytes,
                deadline_s=config.fetch_deadline_s,
                attempts=config.fetch_attempts,
                max_wait_s=config.fetch_max_wait_s,
                per_host=max(1, config.per_host // workers),
                rate_per_host=config.rate_per_host / workers,
            ),
            trusted=frozenset(config.trusted_hosts),
        )

    def of(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes | UnreadPhotoError]]:
        """Each photo's bytes, or why there are none, in order."""
        position = 0
        while position < len(entries):
            entry = entries[position]
            run = position + 1
            if entry.kind == "row":
                while run < len(entries) and entries[run].kind == "row" and entries[run].place == entry.place:
                    run += 1
                yield from self._rows(entries[position:run])
            elif entry.kind == "path":
                yield entry, self._guarded(entry)
            else:
                while run < len(entries) and entries[run].kind in ("url", "gs"):
                    run += 1
                yield from self._ahead(entries[position:run])
            position = run

    def one(self, entry: Entry) -> bytes | UnreadPhotoError:
        """A single photo."""
        return next(self.of([entry]))[1]

    def _ahead(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes | UnreadPhotoError]]:
        asked = ((entry, self._pool.submit(self._guarded, entry)) for entry in entries)
        return in_order(asked, self._config.fetch_threads * _AHEAD - 1)

    def _guarded(self, entry: Entry) -> bytes | UnreadPhotoError:
        try:
            read = {"path": self._file, "url": self._fetched, "gs": self._object, "none": self._nothing}[entry.kind]
            return read(entry.place)
        except UnreadPhotoError as error:
            return error
        except FetchRefusedError as error:
            return UnreadPhotoError(error.reason)

    def _nothing(self, reason: bytes) -> bytes:
        raise UnreadPhotoError(reason.decode())

    def _fetched(self, place: bytes) -> bytes:
        return self._fetcher.get(place.decode())

    def _file(self, place: bytes) -> bytes:
        if not place:
            raise UnreadPhotoError("path_refused")
        try:
            # not opened by a device or a pipe that took the file's place since the plan
            handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError as error:
            raise UnreadPhotoError("not_found") from error
        except (OSError, ValueError) as error:
            raise UnreadPhotoError("unreadable") from error
        try:
            found, most = os.fstat(handle), self._config.max_file_bytes + 1
            if not stat.S_ISREG(found.st_mode):
                raise UnreadPhotoError("not_a_file")
            with open(handle, "rb", closefd=False) as file:
                # memory for what the file has, not for the most that one may have; the second read is of one that grew
                data = file.read(min(found.st_size + 1, most))
                return self._within(data + file.read(most - len(data)) if len(data) > found.st_size else data)
        except OSError as error:
            raise UnreadPhotoError("unreadable") from error
        finally:
            os.close(handle)

    def _within(self, data: bytes) -> bytes:
        if len(data) > self._config.max_file_bytes:
            raise UnreadPhotoError("too_large")
        if not data:
            raise UnreadPhotoError("empty")
        return data

    def _object(self, place: bytes) -> bytes:
        from components.platform.cloud_storage import read_object

        if not place:
            raise UnreadPhotoError("path_refused")
        data = read_object(place.decode(), self._config.max_file_bytes + 1)
        if data is None:
            raise UnreadPhotoError("not_found")
        return self._within(data)

    def _rows(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes | UnreadPhotoError]]:
        """Rows of one Parquet file: only the row groups that hold them are read, a batch at a time."""
        wanted = {entry.row: entry for entry in entries}
        try:
            with pq.ParquetFile(self._table(entries[0].place)) as file:
                column = image_column(file.schema_arrow)
                start = 0
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    if column is not None and any(start <= row < stop for row in wanted):
                        yield from self._row_group(file, group, start, column, wanted)
                    start = stop
        except (pa.ArrowException, OSError, StageError):
            pass  # what was not read is told below, row by row
        for entry in wanted.values():
            yield entry, UnreadPhotoError("unreadable")

    def _table(self, place: bytes) -> Path | BinaryIO:
        """A Parquet file; of a bucket's the last is kept, for shards follow each other in a file."""
        if not place.startswith(SCHEME.encode()):
            return Path(os.fsdecode(place))
        if self._fetched_table is None or self._fetched_table[0] != place:
            from components.platform.cloud_storage import fetch_file

            if self._fetched_table is not None:
                self._fetched_table[1].close()
                self._fetched_table = None
            # kept open and without a name: workers end without goodbye, and the disk has it back all the same
            with tempfile.TemporaryDirectory(prefix="aidetect-photos-") as scratch:
                named = Path(scratch) / "rows.parquet"
                fetch_file(place.decode(), named)
                self._fetched_table = (place, named.open("rb"))
        return self._fetched_table[1]

    def _row_group(
        self, file: pq.ParquetFile, group: int, start: int, column: str, wanted: dict[int, Entry]
    ) -> Iterator[tuple[Entry, bytes | UnreadPhotoError]]:
        row = start
        for batch in file.iter_batches(16, row_groups=[group], columns=[column], use_threads=False):
            cells = batch.column(0)
            for index in range(batch.num_rows):
                entry = wanted.pop(row, None)
                row += 1
                if entry is not None:
                    yield entry, self._cell(cells[index].as_py())
            if not wanted:
                return

    def _cell(self, cell: Any) -> bytes | UnreadPhotoError:
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        try:
            return self._within(data or b"")
        except UnreadPhotoError as error:
            return error
