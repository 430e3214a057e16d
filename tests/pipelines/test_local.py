"""The local target as a process: interrupts stop every stage, and say how to go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.config import load_config
from pipelines.runs import PARAMETERS_FILE, PIPELINE_FILE, new_run
from pipelines.targets.docker import registry_server
from pipelines.targets.runner import run_spec
from tests.e2e.conftest import ROOT, SMALL
from tests.interrupted import InterruptedStart, all_gone


@pytest.mark.parametrize(
    ("sig", "moment"),
    [(signal.SIGINT, "epoch "), pytest.param(signal.SIGTERM, "Executing task", marks=pytest.mark.no_cover)],
)
def test_an_interrupt_ends_every_process_and_leaves_no_bundle(
    tmp_path: Path, migrated: Path, sig: signal.Signals, moment: str
) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
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
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        log = next(iter(tmp_path.glob("runs/*/run.log")), None)
        if log is not None and moment in log.read_text():
            break
        time.sleep(0.1)
    assert process.poll() is None and log is not None, "no stage began, or the training never did"
    os.kill(process.pid, sig)
    output, _ = process.communicate(timeout=60)
    record = json.loads(output)
    assert (process.returncode, record["status"]) == (1, "interrupted")
    assert "goes on from its last checkpoint" in record["error"]
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert left == []
    assert list(tmp_path.rglob("manifest.json")) == []


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_the_moment_a_run_starts_leaves_no_process(
    tmp_path: Path, interrupted_start: InterruptedStart, sig: signal.Signals
) -> None:
    run = new_run(tmp_path, "local", "sample", "test", "abc")
    os.mkfifo(Path(run.folder) / PIPELINE_FILE)  # whoever reads the spec waits for ever
    (Path(run.folder) / PARAMETERS_FILE).touch()
    runners = interrupted_start(sig)
    run_spec(run, lambda record, said: None)
    assert run.status == "interrupted"
    assert all_gone(runners)


def test_an_interrupt_at_the_moment_the_registry_starts_leaves_no_process(
    tmp_path: Path, interrupted_start: InterruptedStart
) -> None:
    config = load_config(overrides=[f"paths.workspace={tmp_path}"])
    servers = interrupted_start(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), registry_server(config):
        pytest.fail("the block must not be reached")
    assert all_gone(servers)
