"""Answers that other instances may be told labels for: a few rows an object, in the bucket of evidence.

`answers/PROCESS/STAMP-DRAWN.json` is a list of rows, closed at STAMP (milliseconds); the id of a request names process
and second, so an answer is found by one listing and a few reads. `given/REQUEST-ITEM/STAMP-DRAWN.json` says which
labels it has already. No photo, no name: what the instance's own index holds, for as long.
"""

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from serving.evidence import Evidence
from serving.platform.errors import AnswerNotSharedError
from serving.platform.request_ids import origin, process_id

EVERY_S: Final = 5.0
"""An answer is in the bucket so many seconds after it was given, at most."""
_ROWS: Final = 500
"""In one object, which stays below the 256 KiB that are read of it."""
_MOST_WAITING: Final = 10_000
_LONGEST_REQUEST_S: Final = 600
_READ: Final = 20
_AT_ONCE: Final = 4
_FIELDS: Final = (str, int, float, str, str, float, str, str)
"""Kinds of a row's values: request, item, time, version, prediction, probability, sha256, key."""


class SharedAnswers:
    """What this instance tells of its answers, and asks of the others'; each method may be called from any thread."""

    def __init__(
        self,
        evidence: Evidence,
        retention_s: float,
        on_dropped: Callable[[int], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Share through `evidence`; answers older than `retention_s` are unknown; told of rows that found no room."""
        self._evidence, self._retention_s, self._on_dropped, self._clock = evidence, retention_s, on_dropped, clock
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=_MOST_WAITING)
        self._sent = clock()
        self._sending = threading.Lock()
        self._asking = threading.BoundedSemaphore(_AT_ONCE)

    def tell(self, row: Iterable[Any]) -> None:
        """Let the others know of an answer; sent with a later `send`. O(1), no I/O."""
        if len(self._rows) == _MOST_WAITING:
            self._on_dropped(1)
        self._rows.append(tuple(row))

    def send(self, now: bool = False) -> None:
        """Write what waits where the last time is long enough ago, or `now`.

        Raises:
            StateError: the bucket refused or does not answer; what waits still waits.
        """
        with self._sending:
            if not self._rows or not (now or self._clock() - self._sent >= EVERY_S):
                return
            while self._rows:
                rows = [self._rows[i] for i in range(min(len(self._rows), _ROWS))]
                name = f"{_stamp(self._clock())}-{secrets.token_hex(4)}.json"
                self._evidence.add(f"answers/{process_id()}/{name}", json.dumps(rows).encode())
                # where memory was full meanwhile the oldest of them are gone already
                for row in rows:
                    if self._rows and self._rows[0] is row:
                        self._rows.popleft()
            self._sent = self._clock()

    def find(self, request_id: str, item: int) -> tuple[Any, ...] | None:
        """The row of an answer that any instance gave; None where none did, or too long ago.

        Raises:
            AnswerNotSharedError: too many ask, or the answer is so young that it may not be there.
            StateError: the bucket does not answer.
        """
        where, now = origin(request_id), self._clock()
        # of its own answers the index of this process knows all
        if where is None or where.process == process_id():
            return None
        if not now - self._retention_s <= where.second <= now + _LONGEST_REQUEST_S:
            return None
        if not self._asking.acquire(blocking=False):
            raise AnswerNotSharedError("other labels are being looked up; send it again")
        try:
            folder = f"answers/{where.process}"
            names = self._evidence.names(folder, _stamp(where.second), _READ)
            last = _stamp(where.second + _LONGEST_REQUEST_S + 2 * EVERY_S)
            for name in names:
                if name > last:
                    break
                for row in _rows(self._evidence.read(f"{folder}/{name}")):
                    if row[:2] == (request_id, item):
                        return row
        finally:
            self._asking.release()
        if now - where.second < 2 * EVERY_S:
            raise AnswerNotSharedError(
                f"the answer is younger than {2 * EVERY_S:g} s and not shared yet; send it again"
            )
        return None

    def label(self, request_id: str, item: int) -> tuple[str, str] | None:
        """The latest label of an answer, and the key that gave it.

        Raises:
            StateError: the bucket does not answer.
        """
        folder = _given(request_id, item)
        names = self._evidence.names(folder)
        if not names:
            return None
        try:
            told = json.loads(self._evidence.read(f"{folder}/{names[-1]}"))
            return str(told["label"]), str(told["key"])
        except (KeyError, TypeError, ValueError, RecursionError):
            return None

    def labelled(self, request_id: str, item: int, label: str, key: str) -> None:
        """Say that an answer has a label now.

        Raises:
            StateError: the bucket refused or does not answer.
        """
        name = f"{_stamp(self._clock())}-{secrets.token_hex(4)}.json"
        told = json.dumps({"label": label, "key": key}).encode()
        self._evidence.add(f"{_given(request_id, item)}/{name}", told)


def _given(request_id: str, item: int) -> str:
    return f"given/{request_id}-{item}"


def _stamp(at: float) -> str:
    return f"{max(int(at * 1000), 0):014d}"


def _rows(content: bytes) -> list[tuple[Any, ...]]:
    """Rows as an instance told them; what cannot be read has none."""
    try:
        told = json.loads(content)
        rows = [tuple(row) for row in told] if isinstance(told, list) else []
    except (TypeError, ValueError, RecursionError):
        return []
    return [row for row in rows if len(row) == len(_FIELDS) and all(map(isinstance, row, _FIELDS))]
