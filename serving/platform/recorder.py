"""Rows on their way into a SQLite file: remembered in O(1) on the request path, written off it, put back on trouble.

A file that is busy or a disk that is full delays what is written and loses nothing until the bounded memory is full; a
damaged file is moved aside and a new one begun. Each trouble is counted, and logged once a minute.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import structlog

from serving.platform.errors import StateError

BUSY_TIMEOUT_S: Final = 5.0
_TOLD_EVERY_S: Final = 60.0

Row = TypeVar("Row")
Trouble = Literal["unwritten", "dropped", "damaged"]
"""A write that failed and is tried again; rows lost because memory was full; a file that was moved aside."""

log = structlog.get_logger(__name__)


class Recorder(Generic[Row]):
    """One SQLite file shared by all workers of a server, and the rows this process has not written yet."""

    def __init__(
        self,
        path: Path | None,
        schema: str,
        write: Callable[[sqlite3.Cursor, Sequence[Row]], None],
        most: int,
        setting: str,
        on_trouble: Callable[[Trouble, int], None] = lambda _trouble, _rows: None,
    ) -> None:
        """Open or create the file.

        Args:
            path: the file; None keeps it in memory.
            schema: SQL that makes what is missing and may be run again.
            write: puts rows into the tables, inside a transaction.
            most: rows held in memory at most; beyond it the oldest go.
            setting: the variable that names the file, for messages.
            on_trouble: told of each trouble and of how many rows it met.

        Raises:
            StateError: the file cannot be opened or made.
        """
        self.path = path
        self._schema, self._write, self._setting, self._on_trouble = schema, write, setting, on_trouble
        self._rows: deque[Row] = deque(maxlen=most)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = float("-inf")
        try:
            self._connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            if not _is_damage(error):
                raise StateError(f"{setting}={path}: {error}; name a file in a writable folder") from error
            self._set_aside(error)

    def put(self, row: Row) -> None:
        """Remember a row; O(1), no lock, no I/O."""
        if len(self._rows) == self._rows.maxlen:
            self._on_trouble("dropped", 1)
        self._rows.append(row)

    def flush(self) -> None:
        """Write what is remembered, all or nothing.

        Raises:
            sqlite3.Error, OSError: nothing was written, and everything is still remembered.
        """
        if not self._rows:
            return
        with self._lock:
            taken = [self._rows.popleft() for _ in range(len(self._rows))]
            try:
                with self._open_transaction() as cursor:
                    self._write(cursor, taken)
            except BaseException:
                room = (self._rows.maxlen or 0) - len(self._rows)
                if len(taken) > room:  # more came meanwhile than memory holds: the oldest go
                    self._on_trouble("dropped", len(taken) - room)
                self._rows.extendleft(reversed(taken[max(0, len(taken) - room) :]))
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """A write transaction that no other process can come between; nothing of it stays when the block raises."""
        with self._lock, self._open_transaction() as cursor:
            yield cursor

    def read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def trouble_told(self) -> Iterator[None]:
        """Within: trouble with the file is counted and logged, and ends the block without an error."""
        try:
            yield
        except (OSError, sqlite3.Error, StateError) as error:
            self._on_trouble("unwritten", len(self._rows))
            if _is_damage(error):
                with self._lock:
                    self._replace_damaged(error)
            elif time.monotonic() - self._told > _TOLD_EVERY_S:
                self._told = time.monotonic()
                log.error("record_not_written", path=str(self.path), waiting=len(self._rows), error=str(error))

    def start(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        """Do `work` every so often on a thread of its own, until `close`."""

        def run() -> None:
            while not self._stop.wait(every_s):
                try:
                    with self.trouble_told():
                        work()
                except Exception:
                    log.exception("recorder_failed", path=str(self.path))

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, write what is remembered and close the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * BUSY_TIMEOUT_S)
        with self.trouble_told():
            self.flush()
        with self._lock:
            self._connection.close()

    @contextmanager
    def _open_transaction(self) -> Iterator[sqlite3.Cursor]:
        cursor = self._connection.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            # also where COMMIT failed: an open transaction would refuse every later one
            if self._connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(self._schema)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _replace_damaged(self, error: BaseException) -> None:
        self._connection.close()
        try:
            self._connection = self._connect()
            # another process of this server may have put a new file in its place already
            if self._connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return
            self._connection.close()
        except sqlite3.Error as again:
            if not _is_damage(again):
                raise
        self._set_aside(error)

    def _set_aside(self, error: BaseException) -> None:
        assert self.path is not None
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
        self.path.rename(aside)
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        self._on_trouble("damaged", 0)
        log.error("record_damaged", path=str(self.path), moved_to=str(aside), error=str(error))
        self._connection = self._connect()


def _is_damage(error: BaseException) -> bool:
    # SQLite's own class, not one of its kinds: the file is malformed or no database at all
    return type(error) is sqlite3.DatabaseError
