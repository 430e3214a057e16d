"""Signals that arrive at the worst moment: while a process is being started."""

import os
import signal
import subprocess
from typing import Any

import psutil
import pytest


def interrupt_the_next_start(monkeypatch: pytest.MonkeyPatch, sig: signal.Signals) -> list[psutil.Process]:
    """Let `sig` come when the next child runs and nobody holds it yet; returns where that child appears."""
    started: list[psutil.Process] = []

    class Interrupted(subprocess.Popen[Any]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if not started:
                started.append(psutil.Process(self.pid))
                os.kill(os.getpid(), sig)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    return started


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether there were some and none of them runs any more: who stops a process waits until it has gone."""
    return bool(processes) and not psutil.wait_procs(processes, timeout=0.5)[1]
