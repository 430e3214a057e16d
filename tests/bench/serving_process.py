"""A server under measurement: its start, its processor time, its memory."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil


class ServerProcess:
    """`python -m MODULE` on a free port; a context manager that ends what it started."""

    def __init__(self, module: str, bundle: Path, log: Path, **env: str) -> None:
        self._module = module
        self._log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._env = {
            **os.environ,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "MODEL_URI": str(bundle),
            "RATE_LIMIT_ENABLED": "false",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            **env,
        }
        self.ready_s = 0.0

    def __enter__(self) -> "ServerProcess":
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module], env=self._env, stdout=log, stderr=subprocess.STDOUT
            )
        self._watch = psutil.Process(self._process.pid)
        while not self._is_ready():
            if self._process.poll() is not None or time.perf_counter() - started > 120:
                self.__exit__(None, None, None)
                raise RuntimeError(f"{self._module} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.01)
        self.ready_s = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    @property
    def pid(self) -> int:
        """Process id of the server, or of the supervisor of its workers."""
        return self._process.pid

    def cpu_s(self) -> float:
        """User and system time of the process, all threads, since it started."""
        times = self._watch.cpu_times()
        return times.user + times.system

    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._watch.memory_info().rss / 2**20

    def load(self, path: str, image: Path, *options: str) -> dict[str, Any]:
        """Run the load generator; adds `n`, `cpu_ms` an answered request, and `errors` (answers that are not 200)."""
        command = [sys.executable, "-m", "tests.bench.serving_load", str(self.port), path, str(image), *options]
        before = self.cpu_s()
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
        spent = self.cpu_s() - before
        result: dict[str, Any] = json.loads(output)
        result["n"] = len(result["ms"])
        result["errors"] = result["n"] - result["statuses"].get("200", 0)
        result["cpu_ms"] = spent / max(1, result["n"]) * 1e3
        return result
