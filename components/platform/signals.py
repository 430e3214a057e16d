"""How a stage hears that it must not go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from serving.platform.errors import StoppedError


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within: SIGTERM raises `StoppedError`, so that what was begun is taken back before the process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; the caller's own handling stays
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise StoppedError("stopped by SIGTERM; everything begun was taken back, run it again")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Within: SIGINT and SIGTERM wait until the end of the block.

    For the moment in which a process is started: an exception between its start and the assignment that makes it
    somebody's would leave it running with nobody to stop it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        held.append(number)

    previous = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for first in held[:1]:
            signal.raise_signal(first)
