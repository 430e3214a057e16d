"""Child processes that do not outlive the one that started them, however it ended.

A tied child reads a pipe whose other end only its parent holds: the kernel closes that end also on `kill -9`, on every
POSIX system. (Linux' PR_SET_PDEATHSIG would end the child with the *thread* that started it, not with the process.)
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Final

_THIS: Final = "serving.platform.processes"
_STAY: Final = b"stay"
_PATIENCE_S: Final = 20.0
"""From SIGTERM to SIGKILL for a child that has lost its parent."""


def tied(module: str, *arguments: str) -> list[str]:
    """The command that runs `python -m MODULE ARGUMENTS` tied to its parent.

    Start it with `stdin=subprocess.PIPE`, and with `start_new_session=True` where it has children of its own: when the
    parent is gone, the whole group is told to end.
    """
    return [sys.executable, "-m", _THIS, module, *arguments]


def untie(process: "subprocess.Popen[Any]") -> None:
    """Let a tied child live on by itself, whatever becomes of this process."""
    assert process.stdin is not None
    os.write(process.stdin.fileno(), _STAY)
    process.stdin.close()


def main() -> None:
    """`python -m serving.platform.processes MODULE ARGUMENTS`: run a module until it, or the parent, ends."""
    threading.Thread(target=_end_with_parent, args=(os.dup(0),), name="parent", daemon=True).start()
    # who reads standard input finds it empty, as with any server
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent(lifeline: int) -> None:
    if os.read(lifeline, len(_STAY)):
        return
    leads = os.getpgrp() == os.getpid()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if leads:
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)
        time.sleep(_PATIENCE_S)


if __name__ == "__main__":
    main()
