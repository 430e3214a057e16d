"""Signals that arrive at the worst moment: while a process is being started."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

InterruptedStart = Callable[[signal.Signals], list[psutil.Process]]


@pytest.fixture
def interrupted_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[InterruptedStart]:
    """Lets a signal come when the next child runs and nobody holds it yet; gives the list where that child appears."""
    started: list[psutil.Process] = []

    def end() -> None:
        for process in started:
            process.kill()

    watchdog = threading.Timer(300, end)

    def interrupt(sig: signal.Signals) -> list[psutil.Process]:
        class Interrupted(subprocess.Popen[Any]):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                if not started:
                    started.append(psutil.Process(self.pid))
                    watchdog.start()
                    os.kill(os.getpid(), sig)

        monkeypatch.setattr(subprocess, "Popen", Interrupted)
        return started

    # pytest-xdist's workers ignore it
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
        watchdog.cancel()
        for process in started:
            if process.is_running():
                process.kill()


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether there were some and none of them runs any more: who stops a process waits until it has gone."""
    return bool(processes) and not psutil.wait_procs(processes, timeout=0.5)[1]
