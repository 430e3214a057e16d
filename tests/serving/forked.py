"""`python -m serving` without the second of its imports: forked from a process that has them."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from tests.untraced import STARTS_COVERAGE

_FORKS = multiprocessing.get_context("forkserver")
if "PYTEST_VERSION" in os.environ:  # the pools of a benchmark fork from a process without all this
    _FORKS.set_forkserver_preload(["serving.__main__", "serving.app", "serving.served", "uvicorn", "uvloop"])


def forks(env: dict[str, str]) -> bool:
    """Whether a server with these settings may be forked: a test starts it, no benchmark; nothing that it reads while
    it imports differs; none of its processes imports for itself; coverage need not follow it."""
    alone = "PROMETHEUS_MULTIPROC_DIR" not in env and env.get("WORKERS", "1") == "1"
    tested = "PYTEST_CURRENT_TEST" in os.environ
    return tested and alone and not any(name.startswith(STARTS_COVERAGE) for name in env)


class Forked:
    """A server's process, used as a `subprocess.Popen` is."""

    def __init__(self, env: dict[str, str], log: Path, most_files: int = 0) -> None:
        self._process = _FORKS.Process(target=_serve, args=(env, str(log), most_files))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; none while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("serving", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _serve(env: dict[str, str], log: str, most_files: int) -> None:
    """What `python -m serving` does, with these variables, writing to this file."""
    os.environ.clear()
    os.environ.update(env)
    from serving.__main__ import main
    from serving.platform.settings import quieten_libraries

    # as the first import does
    quieten_libraries()
    with Path(log).open("w") as out:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(out.fileno(), stream.fileno())
    if most_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    sys.exit(main())
