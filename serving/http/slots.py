"""Engine slots: threads that do jobs in order and hand each result back to the event loop that asked for it."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """Work in a slot's queue; `result` is awaited on the event loop that gave it."""

    __slots__ = ("loop", "result", "waiting", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[T] = self.loop.create_future()
        self.waiting = True
        """Neither begun nor dropped."""

    def succeed(self, value: T) -> None:
        """Hand the value over, on the job's loop, where somebody still waits for it."""
        if not self.result.done():
            self.result.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Hand the error over, as `succeed`."""
        if not self.result.done():
            self.result.set_exception(error)


class Slots:
    """`count` threads behind one queue; they start with the first job.

    A `ThreadPoolExecutor` under `asyncio.wrap_future` does the same with two futures, a condition and three callbacks a
    job; to one client that is a tenth of the event loop's time (docs/adr/010-slots.md).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished = 0
        self._closed = False

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run."""
        return self._unfinished

    def give(self, work: Callable[[], T]) -> Job[T]:
        """Queue work for the next free slot.

        Raises:
            RuntimeError: the slots are closed, or no event loop runs here.
        """
        if self._closed:
            raise RuntimeError("the slots are closed")
        job = Job(work)
        with self._lock:
            self._unfinished += 1
        self._queue.put(job)
        if not self._threads:
            # daemons: an application that was never started does not keep its process alive
            self._threads = [
                threading.Thread(target=self._serve, name=f"slot_{n}", daemon=True) for n in range(self.count)
            ]
            for thread in self._threads:
                thread.start()
        return job

    def drop(self, jobs: Iterable[Job[Any]]) -> None:
        """Give up what nobody waits for: what has not begun frees its place now, what runs when it ends."""
        for job in jobs:
            if self._claim(job):
                self._leave()
                # its place in the queue stays until a slot comes to it; its image must not
                del job.work
            job.result.cancel()

    def close(self) -> None:
        """Drop what waits, let what runs end, and end the threads."""
        self._closed = True
        with suppress(Empty):
            while (job := self._queue.get_nowait()) is not None:
                if self._claim(job):
                    self._leave()
                    _tell(job, job.result.cancel)
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._claim(job):
                self._do(job)
            # no image is held while waiting for the next one
            del job

    def _do(self, job: Job[Any]) -> None:
        try:
            tell = partial(job.succeed, job.work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for it; a slot must outlive it
            tell = partial(job.fail, error)
        self._leave()
        _tell(job, tell)
        # an error's traceback holds this frame, and with it the image
        del tell, job

    def _claim(self, job: Job[Any]) -> bool:
        """Whether the job is the caller's to run or drop; it is only one caller's."""
        with self._lock:
            claimed, job.waiting = job.waiting, False
            return claimed

    def _leave(self) -> None:
        with self._lock:
            self._unfinished -= 1


def _tell(job: Job[Any], what: Callable[[], object]) -> None:
    # a loop that has ended has nobody who waits
    with suppress(RuntimeError):
        job.loop.call_soon_threadsafe(what)
