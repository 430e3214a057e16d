"""kill -9 at a chosen step of a command: before or after one of the calls that change something in the world."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any


def killed_at(step: int, command: Callable[[], object], effects: Sequence[tuple[Any, str]], most: int = 1_000) -> bool:
    """Run a command in a process of its own that dies at its so-manieth step; False: it had fewer steps.

    Args:
        step: 0 is before the first of the calls, 1 after it, 2 before the second.
        command: what is killed.
        effects: (class or module, name of its function) of everything that changes the world.
        most: calls of each that are steps: the files of a folder are as good as each other.
    """
    disconnect()
    with tempfile.TemporaryDirectory() as left_behind:
        return _killed(step, command, effects, most, left_behind)


def _killed(
    step: int, command: Callable[[], object], effects: Sequence[tuple[Any, str]], most: int, scratch: str
) -> bool:
    child = os.fork()
    if child == 0:
        tempfile.tempdir = scratch
        done, counting = 0, threading.Lock()

        def die_in_time() -> None:
            nonlocal done
            with counting:
                if done == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1

        def watched(original: Callable[..., Any]) -> Callable[..., Any]:
            calls = 0

            def call(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > most:
                    return original(*args, **options)
                die_in_time()
                answer = original(*args, **options)
                die_in_time()
                return answer

            return call

        for kind, name in effects:
            setattr(kind, name, watched(getattr(kind, name)))
        try:
            command()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def disconnect() -> None:
    """Close this process's connections to registries in files: a connection is one process's, and of one file."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

    for kind in (Models, Runs):
        for engine in kind._engine_map.values():
            engine.dispose()
