"""Engine slots: threads that do jobs in order and hand each result back to the event loop that asked for it."""

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from serving.platform.errors import AidetectError

T = TypeVar("T")

WATCH_S: Final = 0.5
"""How often running jobs are looked at."""
LOWEST: Final = 19
"""Niceness of a thread whose job was abandoned."""


class Job(Generic[T]):
    """Work in a slot's queue; `result` is awaited on the event loop that gave it."""

    __slots__ = ("abandoned", "cpu_limit_s", "cpu_started_s", "loop", "result", "thread", "waiting", "work")

    def __init__(self, work: Callable[[], T], cpu_limit_s: float) -> None:
        self.work = work
        self.cpu_limit_s = cpu_limit_s
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[T] = self.loop.create_future()
        self.waiting = True
        """Neither begun nor dropped."""
        self.abandoned = False
        """Begun, and nobody waits for its end; its slot has another thread."""
        self.thread: threading.Thread | None = None
        """Which does it now."""
        self.cpu_started_s = 0.0

    def cpu_s(self) -> float:
        """Processor time that its thread has spent on it so far."""
        thread = self.thread
        if thread is None or thread.ident is None:
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) - self.cpu_started_s

    def succeed(self, value: T) -> None:
        """Hand the value over, on the job's loop, where somebody still waits for it."""
        if not self.result.done():
            self.result.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Hand the error over, as `succeed`."""
        if not self.result.done():
            self.result.set_exception(error)


class JobTimeoutError(AidetectError):
    """A job took more processor time than it may; it was abandoned."""


class Slots:
    """`count` threads behind one queue; they start with the first job.

    A thread inside a decoder cannot be stopped. A job that takes too long, or that nobody waits for any more, is
    abandoned: its thread goes on at the lowest priority and ends with it, and another one takes its slot at once. No
    more than `count` are let go on like this; beyond that a slot stays taken until its job ends.

    A `ThreadPoolExecutor` under `asyncio.wrap_future` does the same with two futures, a condition and three callbacks a
    job; to one client that is a tenth of the event loop's time (docs/adr/010-slots.md).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._running: set[Job[Any]] = set()
        self._lock = threading.Lock()
        self._unfinished = 0
        self._gone_on = 0
        self._closed = False
        self._watched_on: asyncio.AbstractEventLoop | None = None

    @property
    def unfinished(self) -> int:
        """Jobs that wait or run."""
        return self._unfinished

    def give(self, work: Callable[[], T], cpu_limit_s: float = math.inf) -> Job[T]:
        """Queue work for the next free slot.

        Args:
            work: what to do.
            cpu_limit_s: processor time it may take; then its result is a `JobTimeoutError`.

        Raises:
            RuntimeError: the slots are closed, or no event loop runs here.
        """
        if self._closed:
            raise RuntimeError("the slots are closed")
        job = Job(work, cpu_limit_s)
        with self._lock:
            self._unfinished += 1
        self._queue.put(job)
        if not self._threads:
            for _ in range(self.count):
                self._start()
        if self._watched_on is not job.loop:
            self._watched_on = job.loop
            job.loop.call_later(WATCH_S, self._look, job.loop)
        return job

    def drop(self, jobs: Iterable[Job[Any]]) -> None:
        """Give up what nobody waits for: what has not begun frees its place now, what runs is abandoned."""
        for job in jobs:
            if self._claim(job):
                self._leave()
                # its place in the queue stays until a slot comes to it; its image must not
                del job.work
            elif not job.result.done():
                self._abandon(job)
            job.result.cancel()

    def close(self, timeout_s: float = math.inf) -> None:
        """Drop what waits, let what runs end within `timeout_s`, and end the threads."""
        self._closed = True
        until = time.monotonic() + timeout_s
        with suppress(Empty):
            while (job := self._queue.get_nowait()) is not None:
                if self._claim(job):
                    self._leave()
                    _tell(job, job.result.cancel)
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            # what does not end is a daemon: it does not keep the process
            thread.join(None if timeout_s == math.inf else max(0.0, until - time.monotonic()))

    def _start(self) -> None:
        # daemons: an application that was never started does not keep its process alive
        thread = threading.Thread(target=self._serve, name="slot", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Abandon what has taken too long; comes again while there is work."""
        with self._lock:
            running = list(self._running)
        for job in running:
            if job.cpu_s() > job.cpu_limit_s and self._abandon(job):
                job.fail(JobTimeoutError(f"it takes more than {job.cpu_limit_s:g} s of processor time"))
        if self._unfinished and self._watched_on is loop:
            loop.call_later(WATCH_S, self._look, loop)
        else:
            self._watched_on = None if self._watched_on is loop else self._watched_on

    def _abandon(self, job: Job[Any]) -> bool:
        """Give a running job's slot to a new thread; False where it has ended, or too many go on already."""
        with self._lock:
            if job not in self._running or self._gone_on >= self.count:
                return False
            self._running.discard(job)
            job.abandoned = True
            self._gone_on += 1
            self._unfinished -= 1
            thread = job.thread
            assert thread is not None
            self._threads.discard(thread)
        if thread.native_id is not None:
            # on Linux a niceness belongs to the thread
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread.native_id, LOWEST)
        if not self._closed:
            self._start()
        return True

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            goes_on = self._do(job) if self._claim(job) else True
            # no image is held while waiting for the next one
            del job
            if not goes_on:
                return

    def _do(self, job: Job[Any]) -> bool:
        """Run it; False where it was abandoned meanwhile, and this thread is no slot's any more."""
        job.cpu_started_s = time.thread_time()
        job.thread = threading.current_thread()
        with self._lock:
            self._running.add(job)
        try:
            tell = partial(job.succeed, job.work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for it; a slot must outlive it
            tell = partial(job.fail, error)
        job.thread = None
        with self._lock:
            self._running.discard(job)
            if job.abandoned:
                self._gone_on -= 1
                return False
            self._unfinished -= 1
        _tell(job, tell)
        # an error's traceback holds this frame, and with it the image
        del tell, job
        return True

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
