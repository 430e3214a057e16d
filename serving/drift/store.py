"""Where observations and closed windows are kept: one SQLite file that survives restarts and joins worker processes.

Every worker of a server appends to the same file, and whichever finds a window full closes it inside one write
transaction, so that all of them report the same windows. Without a path the store lives in memory (one process).
"""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from serving.drift.signals import FORMATS, NUMERIC, Windows
from serving.platform.recorder import Recorder, Trouble

OnTrouble = Callable[[Trouble, int], None]

KEPT_WINDOWS: Final = 100

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS observations (
    id INTEGER PRIMARY KEY, version TEXT NOT NULL, at REAL NOT NULL,
    logit REAL NOT NULL, probability REAL NOT NULL, prediction INTEGER NOT NULL, confidence INTEGER NOT NULL,
    min_side REAL NOT NULL, megapixels REAL NOT NULL, aspect REAL NOT NULL, jpeg_quality REAL, format INTEGER NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS observations_by_version ON observations (version, id);
CREATE INDEX IF NOT EXISTS observations_open ON observations (version, at) WHERE NOT closed;
CREATE TABLE IF NOT EXISTS windows (
    id INTEGER PRIMARY KEY, version TEXT NOT NULL, opened REAL NOT NULL, closed REAL NOT NULL,
    n INTEGER NOT NULL, drifted INTEGER NOT NULL, result TEXT NOT NULL
);
"""
_COLUMNS: Final = "logit, probability, prediction, confidence, min_side, megapixels, aspect, jpeg_quality, format"


class Observation(NamedTuple):
    """One prediction as the drift monitor remembers it; the order is that of the table."""

    version: str
    at: float
    logit: float
    probability: float
    prediction: int
    confidence: int
    min_side: float
    megapixels: float
    aspect: float
    jpeg_quality: float | None
    format: int


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A window whose tests were run; `result` is what the monitor wrote about it."""

    id: int
    opened: float
    closed: float
    n: int
    drifted: bool
    result: dict[str, Any]


class Rows:
    """Columns of some observations as arrays, shape (n,)."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 9)
        self.n = len(rows)
        self.logits, self.probabilities = table[:, 0], table[:, 1]
        self.predictions, self.confidences = table[:, 2].astype(np.int64), table[:, 3].astype(np.int64)
        self.numbers = {name: table[:, 4 + i] for i, name in enumerate(NUMERIC)}
        self.formats = table[:, 8].astype(np.int64)

    def window(self) -> Windows:
        """The same as one window (w = 1)."""
        return Windows(
            logits=self.logits[None],
            predictions=self.predictions[None],
            confidences=self.confidences[None],
            numbers={name: values[None] for name, values in self.numbers.items()},
            formats=self.formats[None],
        )


class DriftStore:
    """Observations and windows of every model version; each method may be called from any thread."""

    def __init__(self, path: Path | None, view: int, most: int, on_trouble: OnTrouble = lambda _kind, _n: None) -> None:
        """Open or create the store; a damaged file is set aside, so that monitoring never keeps a server down.

        Args:
            path: the file; None: memory.
            view: length of the sliding view.
            most: observations that wait in memory at most.
            on_trouble: told of what could not be written, was dropped, or was damaged.

        Raises:
            StateError: the path cannot be written.
        """
        self._view = view
        self.recorder = Recorder[Observation](path, _SCHEMA, _write, most, "DRIFT_STATE_PATH", on_trouble)

    def close_window(
        self,
        version: str,
        size: int,
        min_n: int,
        max_age_s: float,
        judge: Callable[[Rows], tuple[bool, dict[str, Any]]],
    ) -> ClosedWindow | None:
        """Close the oldest window of `version` if it is full, or old with at least `min_n` observations.

        `judge` runs inside the write transaction: no two processes can close the same window.
        """
        waiting, oldest = self._open_window(version)
        if waiting < size and not (waiting >= min_n and time.time() - oldest >= max_age_s):
            return None
        with self.recorder.transaction() as cursor:
            found = cursor.execute(
                f"SELECT id, at, {_COLUMNS} FROM observations WHERE version = ? AND NOT closed "  # noqa: S608 - constants
                "ORDER BY id LIMIT ?",
                (version, size),
            ).fetchall()
            now = time.time()
            old = bool(found) and now - found[0][1] >= max_age_s
            if len(found) < size and not (old and len(found) >= min_n):
                return None
            drifted, result = judge(Rows([row[2:] for row in found]))
            cursor.execute(
                "INSERT INTO windows (version, opened, closed, n, drifted, result) VALUES (?, ?, ?, ?, ?, ?)",
                (version, found[0][1], now, len(found), int(drifted), json.dumps(result)),
            )
            number = int(cursor.lastrowid or 0)
            last = found[-1][0]
            cursor.execute("UPDATE observations SET closed = 1 WHERE version = ? AND id <= ?", (version, last))
            # the closed ones stay only as long as the sliding view shows them
            cursor.execute(
                "DELETE FROM observations WHERE closed AND id <= (SELECT MAX(id) FROM observations) - ?",
                (self._view + size,),
            )
            cursor.execute("DELETE FROM windows WHERE id <= ?", (number - KEPT_WINDOWS,))
            return ClosedWindow(number, found[0][1], now, len(found), drifted, result)

    def recent(self, version: str) -> Rows:
        """The last observations of a version, at most the sliding view's length."""
        found = self.recorder.read(
            f"SELECT {_COLUMNS} FROM observations WHERE version = ? ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants
            (version, self._view),
        )
        return Rows(found)

    def waiting(self, version: str) -> int:
        """Observations of the window that is still open."""
        return self._open_window(version)[0]

    def newest_window(self, version: str) -> int:
        """Number of the last closed window of a version; 0 before the first."""
        return int(self.recorder.read("SELECT COALESCE(MAX(id), 0) FROM windows WHERE version = ?", (version,))[0][0])

    def windows(self, version: str, limit: int) -> list[ClosedWindow]:
        """The last closed windows of a version, newest first."""
        found = self.recorder.read(
            "SELECT id, opened, closed, n, drifted, result FROM windows WHERE version = ? ORDER BY id DESC LIMIT ?",
            (version, limit),
        )
        return [ClosedWindow(i, o, c, n, bool(d), json.loads(result)) for i, o, c, n, d, result in found]

    def _open_window(self, version: str) -> tuple[int, float]:
        """How many observations wait for their test, and since when (Unix time)."""
        query = "SELECT COUNT(*), COALESCE(MIN(at), 0) FROM observations WHERE version = ? AND NOT closed"
        waiting, oldest = self.recorder.read(query, (version,))[0]
        return int(waiting), float(oldest)


def _write(cursor: sqlite3.Cursor, observations: Sequence[Observation]) -> None:
    marks = ", ".join("?" * len(Observation._fields))
    cursor.executemany(
        f"INSERT INTO observations (version, at, {_COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants only
        observations,
    )


def format_id(name: str) -> int:
    """Position of a file format in `FORMATS`."""
    return FORMATS.index(name)
