"""The hostile client against a real server: the honest one is served, memory is bounded, TERM is obeyed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.processes import serve

SECONDS = 15
SHUTDOWN_S = 20
LIMITS = {
    "STARTED": "yes",
    "RATE_LIMIT_ENABLED": "true",
    "RATE_LIMIT_PREDICT": "150/minute",
    "API_KEYS": "a-key-of-decent-length",
}


@pytest.mark.system
@pytest.mark.alone  # latencies
@pytest.mark.no_cover
def test_everything_at_once_stops_neither_the_honest_client_nor_the_end(toy_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(toy_bundle, log, SLOTS="2", SHUTDOWN_TIMEOUT_S=str(SHUTDOWN_S), **LIMITS) as server:
        command = [sys.executable, "-m", "tests.hostile", "--url", server.url, "--seconds", str(SECONDS), "--each", "0"]
        done = subprocess.run([*command, "--terminate", str(SHUTDOWN_S)], capture_output=True, text=True, timeout=240)
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.process.wait(60) == 0
    assert "all at once" in done.stdout
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == [], "every line of the log is JSON"
    assert "Traceback" not in log.read_text()
