"""Calls that run beside each other, answered in the order in which they were made."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


def in_order(calls: Iterable[tuple[Key, Future[Result]]], ahead: int) -> Iterator[tuple[Key, Result]]:
    """`(key, result)` of each call; what is not asked for any more is cancelled.

    Args:
        calls: makes each call when it is asked for the next, so that neither reading nor results run far ahead.
        ahead: calls under way behind the one whose result is awaited; bounds memory.
    """
    waiting: deque[tuple[Key, Future[Result]]] = deque()
    try:
        for call in calls:
            waiting.append(call)
            if len(waiting) > ahead:
                key, future = waiting.popleft()
                yield key, future.result()
        while waiting:
            key, future = waiting.popleft()
            yield key, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
