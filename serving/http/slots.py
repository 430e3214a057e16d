"""Engine slots: threads that do jobs in order and hand each result back to the event loop that asked for it."""

import asyncio
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from serving.platform.errors import AidetectError

T = TypeVar("T")

WATCH_S: Final = 0.1
"""How often running jobs are looked at."""
HALF_LIFE_S: Final = 10.0
MOST_CLIENTS: Final = 4096
"""Whose use is remembered."""
MUCH_MORE_S: Final = 1.0
"""Processor time by which a client has had more than another, where both have about as much waiting."""
STEP_BACK: Final = 10
"""Niceness of a thread whose job was abandoned: it hardly costs the others anything, and still comes to its end."""


class Job(Generic[T]):
    """Work in a slot's queue; `result` is awaited on the event loop that gave it."""

    __slots__ = ("abandoned", "client", "cpu_limit_s", "cpu_started_s", "loop", "result", "thread", "waiting", "work")

    def __init__(self, work: Callable[[], T], client: str, cpu_limit_s: float) -> None:
        self.work = work
        self.client = client
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


class DisplacedError(AidetectError):
    """A waiting job made room for one of a client that had less."""


class Slots:
    """`count` threads behind one queue; they start with the first job.

    Of the jobs that wait, the next is of the client that has had the least processor time of late, and its oldest. So
    one who sends a picture now and then waits for no one's pile of costly ones.

    A thread inside a decoder cannot be stopped. A job that takes too long, or that nobody waits for any more, is
    abandoned: its thread goes on at a low priority and ends with it, and another one takes its slot at once. No
    more than `count` are let go on like this; beyond that a slot stays taken until its job ends.

    A `ThreadPoolExecutor` under `asyncio.wrap_future` does the same with two futures, a condition and three callbacks a
    job; to one client that is a tenth of the event loop's time (docs/adr/010-slots.md).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._wake: SimpleQueue[bool] = SimpleQueue()
        """True for each job given, False for each thread to end."""
        self._waiting: dict[str, deque[Job[Any]]] = {}
        """By client, each oldest first."""
        self._used = Usage()
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

    def give(self, work: Callable[[], T], client: str = "", cpu_limit_s: float = math.inf) -> Job[T]:
        """Queue work for the next free slot.

        Args:
            work: what to do.
            client: in whose name.
            cpu_limit_s: processor time it may take; then its result is a `JobTimeoutError`.

        Raises:
            RuntimeError: the slots are closed, or no event loop runs here.
        """
        if self._closed:
            raise RuntimeError("the slots are closed")
        job = Job(work, client, cpu_limit_s)
        with self._lock:
            self._unfinished += 1
            self._waiting.setdefault(client, deque()).append(job)
        self._wake.put(True)
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
            if not self._take_back(job) and not job.result.done():
                self._abandon(job)
            job.result.cancel()

    def may_displace(self, client: str) -> bool:
        """Whether a job of `client` would take another's place in a full queue."""
        with self._lock:
            return self._victim(client) is not None

    def displace(self, client: str) -> bool:
        """Let the newest job of the client with the most waiting make room; False where `client` has as much."""
        with self._lock:
            victim = self._victim(client)
            job = self._waiting[victim][-1] if victim is not None else None
        if job is None or not self._take_back(job):
            return False
        job.fail(DisplacedError("others had less"))
        return True

    def close(self, timeout_s: float = math.inf) -> None:
        """Drop what waits, let what runs end within `timeout_s`, and end the threads."""
        self._closed = True
        until = time.monotonic() + timeout_s
        with self._lock:
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            threads = list(self._threads)
        for job in waiting:
            if self._take_back(job):
                _tell(job, job.result.cancel)
        for _ in threads:
            self._wake.put(False)
        for thread in threads:
            # what does not end is a daemon: it does not keep the process
            thread.join(None if timeout_s == math.inf else max(0.0, until - time.monotonic()))

    def _victim(self, client: str) -> str | None:
        own = len(self._waiting.get(client, ()))
        used = self._used.of(client)
        greediest = max(self._waiting, key=lambda name: (len(self._waiting[name]), self._used.of(name)), default=client)
        more = len(self._waiting.get(greediest, ())) - own
        return greediest if more > 1 or (more == 1 and self._used.of(greediest) > used + MUCH_MORE_S) else None

    def _take_back(self, job: Job[Any]) -> bool:
        """Whether the job had not begun, and now never will."""
        with self._lock:
            if not job.waiting:
                return False
            job.waiting = False
            self._remove(job)
            self._unfinished -= 1
        # its caller may hold it for a while; its image must not be held
        del job.work
        return True

    def _remove(self, job: Job[Any]) -> None:
        of_client = self._waiting[job.client]
        of_client.remove(job)
        if not of_client:
            del self._waiting[job.client]

    def _next(self) -> Job[Any] | None:
        """The job to do now; None where what was given has been dropped again."""
        with self._lock:
            if not self._waiting:
                return None
            client = next(iter(self._waiting)) if len(self._waiting) == 1 else min(self._waiting, key=self._used.of)
            job = self._waiting[client][0]
            job.waiting = False
            self._remove(job)
            job.cpu_started_s = time.thread_time()
            job.thread = threading.current_thread()
            self._running.add(job)
            return job

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
            if job.cpu_s() > job.cpu_limit_s and not job.result.done():
                self._abandon(job)
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
            spent_s = job.cpu_s()
            self._used.add(job.client, spent_s)
            # what it takes from now on is counted at its end
            job.cpu_started_s += spent_s
        if thread.native_id is not None:
            # on Linux a niceness belongs to the thread
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread.native_id, STEP_BACK)
        if not self._closed:
            self._start()
        return True

    def _serve(self) -> None:
        while self._wake.get():
            job = self._next()
            goes_on = job is None or self._do(job)
            # no image is held while waiting for the next one
            del job
            if not goes_on:
                return

    def _do(self, job: Job[Any]) -> bool:
        """Run it; False where it was abandoned meanwhile, and this thread is no slot's any more."""
        try:
            tell = partial(job.succeed, job.work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for it; a slot must outlive it
            tell = partial(job.fail, error)
        spent_s = time.thread_time() - job.cpu_started_s
        job.thread = None
        with self._lock:
            self._used.add(job.client, spent_s)
            self._running.discard(job)
            if job.abandoned:
                self._gone_on -= 1
                return False
            self._unfinished -= 1
        _tell(job, tell)
        # an error's traceback holds this frame, and with it the image
        del tell, job
        return True


class Usage:
    """Processor time by client, of late: halved every `HALF_LIFE_S`."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[float, float]] = {}

    def of(self, client: str) -> float:
        """Seconds."""
        spent, at = self._spent.get(client, (0.0, 0.0))
        return spent * 0.5 ** ((time.monotonic() - at) / HALF_LIFE_S) if spent else 0.0

    def add(self, client: str, seconds: float) -> None:
        """Count more."""
        total = self.of(client) + seconds
        # the latest stand last
        self._spent.pop(client, None)
        self._spent[client] = (total, time.monotonic())
        if len(self._spent) > MOST_CLIENTS:
            del self._spent[next(iter(self._spent))]


def _tell(job: Job[Any], what: Callable[[], object]) -> None:
    # a loop that has ended has nobody who waits
    with suppress(RuntimeError):
        job.loop.call_soon_threadsafe(what)
