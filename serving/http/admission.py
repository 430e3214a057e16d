"""Who is connected: a cap on connections, a turn for every address, and an end for those that only wait."""

import asyncio
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

SWEEP_S: Final = 1.0
"""How often silent connections are looked for."""

STALLED_READER_S: Final = 10.0
"""How long a client may take next to nothing of an answer that waits for it."""

LEAST_READ_BYTES: Final = 10 * 1024
"""What next to nothing is, in that time."""

RESERVED_FILES: Final = 16
"""Descriptors kept for the server's own files (models, metrics, logs) and for a connection about to be refused."""

_MOST_FILES: Final = 65_536


class Guest(Protocol):
    """A connection, as its host sees it."""

    address: str
    """Its client's network address."""

    @property
    def waits_since(self) -> float | None:
        """Loop time from which it has owed a whole request head; None while a request is being answered."""

    @property
    def is_incomplete(self) -> bool:
        """Whether the client still owes a part of its request: its head, or its body."""

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that the client has not taken yet."""

    def drop(self) -> None:
        """End it now."""


class Admission:
    """The connections of one process.

    When all places are taken, a newcomer gets that of the address with the most connections: the one of them that has
    owed a request for longest. So a flood from one place takes its own connections away, and nobody else's.
    """

    def __init__(self, most: int, head_timeout_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._most = most
        self._head_timeout_s = head_timeout_s
        self._loop = loop
        self._guests: dict[str, dict[Guest, None]] = {}
        self._count = 0
        self._unread: dict[Guest, tuple[float, int]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def enter(self, guest: Guest) -> bool:
        """Take the newcomer in, if need be in another's place; False where none can be had."""
        if self._count >= self._most and not self._make_room():
            return False
        self._guests.setdefault(guest.address, {})[guest] = None
        self._count += 1
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        return True

    def leave(self, guest: Guest) -> None:
        """The connection has ended; one that never entered is no error."""
        of_address = self._guests.get(guest.address, {})
        if guest in of_address:
            del of_address[guest]
            self._count -= 1
            self._unread.pop(guest, None)
            if not of_address:
                del self._guests[guest.address]

    def _make_room(self) -> bool:
        greediest = max(self._guests.values(), key=len)
        owing = [guest for guest in greediest if guest.is_incomplete]
        if not owing:
            return False
        # those in the middle of a body have no waiting time and come last
        victim = min(owing, key=lambda guest: guest.waits_since or self._loop.time())
        victim.drop()
        self.leave(victim)
        return True

    def _sweep(self) -> None:
        now = self._loop.time()
        for guest in [guest for of_address in self._guests.values() for guest in of_address]:
            since = guest.waits_since
            if (since is not None and now - since > self._head_timeout_s) or self._is_stalled(guest, now):
                guest.drop()
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep) if self._count else None

    def _is_stalled(self, guest: Guest, now: float) -> bool:
        unread = guest.unread_bytes
        if not unread:
            self._unread.pop(guest, None)
            return False
        since, before = self._unread.setdefault(guest, (now, unread))
        if before - unread >= min(before, LEAST_READ_BYTES):
            self._unread[guest] = (now, unread)
            return False
        return now - since > STALLED_READER_S


def most_connections(wanted: int) -> int:
    """So many connections as are wanted, or as the process may have files; its soft limit is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < ceiling:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
            soft = ceiling
    folder = Path("/proc/self/fd")
    # where the system does not tell, as many as a running server has
    in_use = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 2 * RESERVED_FILES
    return max(1, min(wanted, soft - in_use - RESERVED_FILES))
