"""Manners towards one host: how many requests at once, how many a second, and the waiting it asks for."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Final

_KEPT: Final = 4096


class Host:
    """The state of one host."""

    def __init__(self, concurrency: int, rate: float) -> None:
        self._places = threading.BoundedSemaphore(concurrency)
        self._gap_s = 1 / rate if rate else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the host's places, held during the block."""
        with self._places:
            yield

    def turn(self) -> None:
        """Wait until the rate, and what the host asked for, allow a request."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._gap_s
        if at > now:
            time.sleep(at - now)

    def rest(self, seconds: float) -> None:
        """Send nothing for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Hosts:
    """Every host met lately; bounded."""

    def __init__(self, concurrency: int, rate: float) -> None:
        """Set the manners.

        Args:
            concurrency: requests under way to one host.
            rate: requests a second to one host; 0: as many as come.
        """
        self._concurrency, self._rate = concurrency, rate
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    def of(self, name: str) -> Host:
        """The state of the host `name`."""
        with self._lock:
            host = self._hosts.pop(name, None) or Host(self._concurrency, self._rate)
            self._hosts[name] = host
            if len(self._hosts) > _KEPT:
                self._hosts.popitem(last=False)
            return host


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or as a date; None where it says nothing readable."""
    if value is None:
        return None
    value = value.strip()[:64]
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), 10**8))
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
