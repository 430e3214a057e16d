"""Rate limits shared through a real Redis."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bundles import jpeg
from tests.serving.processes import Server, serve

pytestmark = pytest.mark.system


@contextmanager
def redis(port: int, folder: Path) -> Iterator[None]:
    """A Redis of Debian's package `redis-server` on loopback, in memory only."""
    binary = shutil.which("redis-server")
    assert binary, "apt-get install redis-server"
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not listen"
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(server: Server) -> int:
    files = {"file": ("x.jpg", jpeg(200), "image/jpeg")}
    return httpx.post(f"{server.url}/predict", files=files, timeout=60).status_code


def storage_failures(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    (line,) = [row for row in text.splitlines() if row.startswith("aidetect_rate_limit_storage_failures_total ")]
    return float(line.split()[1])


def test_replicas_share_one_limit_outlive_an_outage_and_return(toy_bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    env = {
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_PREDICT": "6/hour",
        "RATE_LIMIT_STORAGE_URI": f"redis://127.0.0.1:{port}/0",
        "SLOTS": "1",
    }
    with ExitStack() as stack:
        first = stack.enter_context(serve(toy_bundle, tmp_path / "first.log", **env))
        second = stack.enter_context(serve(toy_bundle, tmp_path / "second.log", **env))
        with redis(port, tmp_path):
            shared = [ask(server) for _ in range(4) for server in (first, second)]
            assert shared == [200] * 6 + [429] * 2
            assert storage_failures(first) == storage_failures(second) == 0

        # no Redis: each replica goes on by itself, limited still, and quickly
        started = time.monotonic()
        alone = [ask(first) for _ in range(8)]
        assert alone == [200] * 6 + [429] * 2
        assert time.monotonic() - started < 30
        assert storage_failures(first) >= 1
        assert "rate limit storage failed" in (tmp_path / "first.log").read_text()

        # Redis is back, empty: within its pause the replica asks it again
        with redis(port, tmp_path):
            deadline = time.monotonic() + 60
            while (status := ask(first)) == 429 and time.monotonic() < deadline:
                time.sleep(0.25)
            assert status == 200
            assert [ask(second) for _ in range(6)].count(200) <= 5
