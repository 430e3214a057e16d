"""Shards on processes of this machine: the standard library's pool only schedules; what dies with a worker is found."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Final

from components.catalogue.entries import Entry
from components.catalogue.rows import WORKER_DIED, Row, refused
from components.catalogue.scoring import Scorer, Work
from components.platform.workers import workers_context
from serving.platform.errors import CatalogueError
from serving.platform.settings import pin_numerical_threads

Shard = tuple[int, list[Entry]]
Scored = tuple[int, list[Row]]

_WORKERS_MODULE: Final = "components.catalogue.scoring"
"""What each worker needs, and takes most of a second to import."""

_scorer: Scorer | None = None


def score_shards(work: Work, shards: Iterator[Shard]) -> Iterator[Scored]:
    """Rows of each shard as they come, in no order; one photo that kills its process costs its own row only.

    Args:
        work: the bundle and how to read.
        shards: what to score; read a little ahead of the workers.
    """
    suspects: list[Shard] = []
    while True:
        broke = yield from _until_it_breaks(work, shards, suspects)
        # each shard that was under way is tried with nothing beside it, so that the guilty photo can be told
        while suspects:
            number, entries = suspects.pop()
            yield number, score_alone(work, entries)
        if not broke:
            return


def _until_it_breaks(work: Work, shards: Iterator[Shard], suspects: list[Shard]) -> Generator[Scored, None, bool]:
    """Score until the shards end or a worker dies; leaves in `suspects` what was under way then; returns whether."""
    waiting: dict[Future[list[Row]], Shard] = {}
    with _pool(work, work.workers) as pool:
        try:
            ended = False
            while waiting or not ended:
                while not ended and len(waiting) < 2 * work.workers:
                    shard = next(shards, None)
                    if shard is None:
                        ended = True
                        break
                    try:
                        waiting[pool.submit(_score, shard[1])] = shard
                    except BrokenProcessPool:
                        # a worker died while this shard was read: nobody has it yet
                        suspects.append(shard)
                        raise
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    rows = future.result()
                    yield waiting.pop(future)[0], rows
        except BrokenProcessPool:
            for future, shard in waiting.items():
                if future.done() and future.exception() is None:
                    yield shard[0], future.result()
                else:
                    suspects.append(shard)
            return True
        finally:
            for future in waiting:
                future.cancel()
    return False


def score_alone(work: Work, entries: Sequence[Entry], again: bool = True) -> list[Row]:
    """Rows of photos of which one may kill its process: found by halving, and by then asked twice."""
    with _pool(work, 1) as pool:
        try:
            return pool.submit(_score, list(entries)).result()
        except BrokenProcessPool:
            if len(entries) == 1 and again:
                return score_alone(work, entries, again=False)
            if len(entries) == 1:
                return [refused(entries[0].id, entries[0].uri, WORKER_DIED)]
    half = len(entries) // 2
    return score_alone(work, entries[:half]) + score_alone(work, entries[half:])


@contextmanager
def _pool(work: Work, workers: int) -> Iterator[ProcessPoolExecutor]:
    pin_numerical_threads()
    pool = ProcessPoolExecutor(workers, workers_context(_WORKERS_MODULE), initializer=_load, initargs=(work,))
    try:
        # a bundle that no worker can load would look like a photo that kills every worker; asked of as many as there
        # are to be, because the pool starts a worker only for what waits, and all load side by side
        try:
            for loaded in [pool.submit(_is_loaded) for _ in range(workers)]:
                loaded.result()
        except BrokenProcessPool as error:
            raise CatalogueError(f"no worker starts with {work.bundle}: the log above says why") from error
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load(work: Work) -> None:
    global _scorer
    # an interrupt is the parent's to handle; it ends the pool
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _scorer = Scorer(work)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _is_loaded() -> bool:
    return _scorer is not None


def _score(entries: list[Entry]) -> list[Row]:
    assert _scorer is not None
    return _scorer.score(entries)


Executor = Callable[[Work, Iterator[Shard]], Iterator[Scored]]
