"""The cyclic garbage collector, kept away from what a process makes once and keeps: modules, routes, a model."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Around imports and set-up: what stands at the end is kept for good.

    Meanwhile the collector would walk every new object again and again to find nothing, a fifth of the time that
    torch's import takes; afterwards every full collection would stop all threads to walk them once more. Cycles that
    are garbage by then stay in memory, so this is for the start of a part, not for work that comes back.
    """
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if ran:
            gc.enable()
