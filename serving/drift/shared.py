"""Drift over all instances of a service: each tells the others its closed windows, and all say the same of them.

Instances stand behind one balancer, so the worst of them speaks: an alarm stands while two of the last three windows of
any instance moved. An instance that told nothing for longer than a window may last is no longer heard. Instances come
and go: the windows of one that had ended before another began are counted with those of its successor.
"""

import json
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from serving.drift.report import ALERT_LEVELS, SignalReport
from serving.drift.standing import PERSISTENCE, state_after
from serving.drift.store import ClosedWindow
from serving.evidence import Evidence

LISTEN_EVERY_S: Final = 30.0
_LISTENS: Final = 100
"""At least so many in the time that a window may last."""
_KEPT: Final = PERSISTENCE[1]
_WAITING: Final = 100


class SharedWindows:
    """The windows of the other instances, by instance, newest first; used by one thread at a time."""

    def __init__(
        self,
        evidence: Evidence,
        max_age_s: float,
        every_s: float = LISTEN_EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Share through `evidence`; windows older than twice `max_age_s` say nothing."""
        self._evidence, self._horizon_s, self._clock = evidence, 2 * max_age_s, clock
        self._every_s = min(every_s, max_age_s / _LISTENS)
        self._instance = uuid4().hex[:12]
        self._waiting: list[tuple[str, ClosedWindow]] = []
        self._version = ""
        self._read: dict[str, ClosedWindow] = {}
        self._listened = float("-inf")

    def tell(self, version: str, window: ClosedWindow) -> None:
        """Let the others know of a window that was closed here; sent with the next `listen`."""
        self._waiting = [*self._waiting, (version, window)][-_WAITING:]

    def listen(self, version: str) -> bool:
        """Send what waits, and read what is new where the last look is long enough ago; whether something was new.

        Raises:
            StateError: the bucket cannot be read or written; what waits still waits.
        """
        if version != self._version:
            self._version, self._read, self._listened = version, {}, float("-inf")
        while self._waiting:
            told_version, window = self._waiting[0]
            document = {"opened": window.opened, "closed": window.closed, "n": window.n, "drifted": window.drifted}
            name = f"{_folder(told_version)}/{_stamp(window.closed)}-{self._instance}-{window.id}.json"
            self._evidence.add(name, json.dumps({**document, "result": window.result}).encode())
            self._waiting.pop(0)
        now = self._clock()
        if now - self._listened < self._every_s:
            return False
        self._listened = now
        names = self._evidence.names(_folder(version), _stamp(now - self._horizon_s))
        standing = {name for name in names if name.split("-")[1:2] != [self._instance]}
        fresh = [name for name in standing if name not in self._read]
        gone = [name for name in self._read if name not in standing]
        for name in gone:
            del self._read[name]
        for name in fresh:
            self._read[name] = _window(self._evidence.read(f"{_folder(version)}/{name}"))
        return bool(fresh or gone)

    def worst(self, own: list[ClosedWindow]) -> list[ClosedWindow]:
        """The windows, newest first, of the instance that moved most; our own where none is worse."""
        by_instance: dict[str, list[ClosedWindow]] = {}
        for name in sorted(self._read, reverse=True):
            by_instance.setdefault(name.split("-")[1], []).append(self._read[name])
        groups = [own, *(windows[:_KEPT] for windows in by_instance.values())]
        groups = [_succeeding(windows, groups) for windows in groups]
        return max(groups, key=lambda group: (ALERT_LEVELS[state_after(group)], group[0].closed if group else 0.0))


def _succeeding(windows: list[ClosedWindow], told: list[list[ClosedWindow]]) -> list[ClosedWindow]:
    """An instance's windows, and while these are too few to tell, those of whichever had ended before its first."""
    latest = sorted(filter(None, told), key=lambda earlier: earlier[0].closed, reverse=True)
    while windows and len(windows) < _KEPT:
        first = windows[-1].opened
        ended = [[*windows, *earlier] for earlier in latest if earlier[0].n and earlier[0].closed < first]
        if not ended:
            break
        # which of several it stands in for nobody knows: the worst speaks here, too
        windows = max(ended, key=lambda group: ALERT_LEVELS[state_after(group)])
    return windows


def _folder(version: str) -> str:
    return f"drift/{quote(version, safe='')}"


def _stamp(at: float) -> str:
    return f"{max(int(at * 1000), 0):014d}"


def _window(content: bytes) -> ClosedWindow:
    """A window as another instance told it; what cannot be read counts as one that did not move."""
    quiet = {"moved": [], "diagnosis": "", "signals": {}}
    try:
        told = json.loads(content)
        result = told["result"]
        for signal in result["signals"].values():
            SignalReport(**signal)
        if not set(result["moved"]) <= set(result["signals"]):
            raise ValueError("a signal moved that is not there")
        result = {**quiet, **result, "diagnosis": str(result["diagnosis"])}
        opened, closed, n = float(told["opened"]), float(told["closed"]), int(told["n"])
        return ClosedWindow(0, opened, closed, n, told["drifted"] is True, result)
    except (KeyError, TypeError, ValueError, RecursionError):
        return ClosedWindow(0, 0.0, 0.0, 0, False, quiet)
