"""An ordered map over a stream that starts at once and brings in more processes only for work that lasts."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

from components.platform.ahead import in_order
from components.platform.workers import workers_context

Item = TypeVar("Item")
Result = TypeVar("Result")

INLINE_S: Final = 2.0
"""Work shorter than this is done before a second process would have started."""
_IN_FLIGHT: Final = 2
"""Items waiting for each process; bounds memory."""


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, inline_s: float = INLINE_S
) -> Iterator[tuple[Item, Result]]:
    """`(item, function(item))` in the items' order.

    Processes, not threads: with small images most of a decode holds the interpreter's lock (two threads were measured
    at 0.7 times the speed of one). `function` must be importable and its arguments picklable.
    """
    stream = iter(items)
    started = time.monotonic()
    for item in stream:
        yield item, function(item)
        if workers > 1 and time.monotonic() - started > inline_s:
            break
    else:
        return
    with ProcessPoolExecutor(workers, workers_context()) as pool:
        yield from in_order(((item, pool.submit(function, item)) for item in stream), _IN_FLIGHT * workers)
