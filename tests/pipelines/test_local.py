"""The local target as a process: interrupts stop every stage, and say how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROOT, SMALL


@pytest.mark.parametrize("sig", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.no_cover)])
def test_an_interrupt_ends_every_process_and_leaves_no_bundle(tmp_path: Path, sig: signal.Signals) -> None:
    settings = {**SMALL, "train.epochs": "500", "paths.workspace": str(tmp_path)}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "run", "--json", *sets],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    log = None
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        log = next(iter(tmp_path.glob("runs/*/run.log")), None)
        if log is not None and "epoch " in log.read_text():
            break
        time.sleep(0.2)
    assert process.poll() is None and log is not None, "the training never began"
    os.kill(process.pid, sig)
    output, _ = process.communicate(timeout=60)
    record = json.loads(output)
    assert (process.returncode, record["status"]) == (1, "interrupted")
    assert "goes on from its last checkpoint" in record["error"]
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert left == []
    assert list(tmp_path.rglob("manifest.json")) == []
