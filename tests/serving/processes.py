"""A server as a process of its own: started, watched and stopped as an operator would."""

import io
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving.forked import Forked, forks
from tests.untraced import STARTS_COVERAGE

HANG_S = 120.0
"""What takes longer hangs; generous, for the processors are shared."""


def free_port() -> int:
    """A port nobody listens on; somebody else may take it before it is used (`serve` then takes another)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**env: str) -> dict[str, str]:
    """The environment of a server under test: nothing of the developer's own settings."""
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR") or k.startswith(STARTS_COVERAGE)}
    return {**keep, "RATE_LIMIT_ENABLED": "false", "OMP_NUM_THREADS": "1", **env}


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str] | Forked, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ready_s = 0.0
        """From the start of the process to its first ready answer."""
        self._log = log
        self._watch = psutil.Process(process.pid)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def cpu_s(self) -> float:
        """User and system time of the process, all threads, since it started; to the nanosecond on Linux."""
        if sys.platform != "linux":
            times = self._watch.cpu_times()
            return times.user + times.system
        # psutil's figures come in steps of 10 ms; the clock's number as clock_getcpuclockid(3) makes it
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def threads_s(self) -> dict[int, float]:
        """User and system time of each thread that lives, by its id; the event loop's id is the process's."""
        if sys.platform != "linux":
            return {t.id: t.user_time + t.system_time for t in self._watch.threads()}
        spent: dict[int, float] = {}
        for folder in Path(f"/proc/{self.process.pid}/task").iterdir():
            # one that ends meanwhile is no loss
            with suppress(OSError):
                spent[int(folder.name)] = int((folder / "schedstat").read_text().split()[0]) / 1e9
        return spent

    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._watch.memory_info().rss / 2**20

    def peak_mib(self) -> float:
        """Largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HANG_S)


@contextmanager
def serve(model_uri: Path | str, log: Path, module: str = "serving", **env: str) -> Iterator[Server]:
    """Start `python -m MODULE` on a free port and wait until it is ready; ends what it started.

    The server itself is forked from a process that has its imports, where that makes no difference; `STARTED` =
    `yes` starts it as an operator does. The variable `MOST_FILES` is no setting either but its limit on open files.
    """
    most, started_as_told = int(env.pop("MOST_FILES", 0)), env.pop("STARTED", "")
    for attempt in range(5):
        port = free_port()
        started = time.perf_counter()
        variables = environment(HOST="127.0.0.1", PORT=str(port), MODEL_URI=str(model_uri), **env)
        if module == "serving" and not started_as_told and forks(variables):
            process: subprocess.Popen[str] | Forked = Forked(variables, log, most)
        else:
            process = _started(module, variables, log, most)
        server = Server(process, port, log)
        try:
            if not _is_ready(server) and attempt < 4 and "choose another PORT" in server.log:
                continue
            assert process.poll() is None, f"the server ended with {process.returncode}:\n{server.log}"
            server.ready_s = time.perf_counter() - started
            yield server
        finally:
            _end(process)
        return


def _started(module: str, variables: dict[str, str], log: Path, most_files: int) -> "subprocess.Popen[str]":
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most_files, most_files)) if most_files else None
    command = [sys.executable, "-m", module]
    with log.open("w") as out:
        return subprocess.Popen(
            command, env=variables, stdout=out, stderr=subprocess.STDOUT, text=True, preexec_fn=limit
        )


def start_refused(**env: str) -> tuple[int, str]:
    """Exit code and standard error of a server that must not start."""
    done = subprocess.run(
        [sys.executable, "-m", "serving"], env=environment(**env), capture_output=True, text=True, timeout=HANG_S
    )
    return done.returncode, done.stderr


def load_refused(**env: str) -> tuple[int, str]:
    """The same in this process, which has its imports: for what is refused before an application is made."""
    from serving import __main__ as serving

    def serves(*_: object) -> int:
        raise AssertionError("the server would have started")

    said, before = io.StringIO(), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(serving, "_run", serves)
        patch.setattr(serving, "_supervise", serves)
        try:
            _set_environment(environment(**env))
            return serving.main(), said.getvalue()
        finally:
            # also what the start itself has set
            _set_environment(before)


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _is_ready(server: Server) -> bool:
    """Whether the server became ready; False: it ended."""
    deadline = time.monotonic() + HANG_S
    with httpx.Client(timeout=30, trust_env=False) as client:
        while time.monotonic() < deadline:
            if server.process.poll() is not None:
                return False
            with suppress(httpx.TransportError):
                if client.get(f"{server.url}/readyz").status_code == 200:
                    return True
            time.sleep(0.01)
    raise AssertionError(f"the server was not ready within {HANG_S:g} s:\n{server.log}")


def _end(process: subprocess.Popen[str] | Forked) -> None:
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        for member in family:
            member.kill()
        process.wait(60)
