"""Whole pipeline runs through the command line, small enough for a test: real stages, few images, one epoch."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.archives import unpack
from tests.shared import once

ROOT = Path(__file__).resolve().parents[2]

SMALL = {
    "data.uri": "tests/sample64",
    "verify_data.limit": "160",
    "verify_data.min_rows": "20",
    "verify_data.workers": "1",
    "train.architecture": "test_efficientnet",
    "train.weights": "none",
    "train.input_px": "64",
    "train.low_res_epochs": "0",
    "train.epochs": "1",
    "train.threads": "1",
    "train.processes": "1",
    "train.loader_threads": "1",
    "evaluate.robustness_images": "20",
    "evaluate.bootstrap_draws": "200",
    "evaluate.paired_draws": "200",
    "evaluate.gallery_images": "2",
    "evaluate.latency_runs": "5",
    "evaluate.threads": "1",
    "gate.min_test_images": "1",
}

PLACE = "a shop's photos"


@dataclass(frozen=True)
class Cli:
    """`aidetect` on a workspace of its own."""

    workspace: Path

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """One command line in this process, which has its imports already; a process of its own costs a second."""
        from pipelines.cli.app import run_app

        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(ROOT), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_app(list(arguments))
        return subprocess.CompletedProcess(["aidetect", *arguments], code, out.getvalue(), err.getvalue())

    def started(self, *arguments: str, timeout_s: float = 900) -> "subprocess.CompletedProcess[str]":
        """One command line as a shell starts it, from an environment that lies beside the workspace, if one does."""
        beside = self.workspace.parent / ".venv/bin/python"
        return subprocess.run(
            [
                str(beside) if beside.exists() else sys.executable,
                "-c",
                "from pipelines.cli import main; main()",
                *arguments,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def run(self, *extra: str, started: bool = False, **changes: str) -> "tuple[int, dict[str, Any]]":
        """`aidetect run` with small settings; returns the exit code and the run's record."""
        settings = {**SMALL, "paths.workspace": str(self.workspace), **changes}
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        words = ["run", "--profile", "sample", "--on", "local", "--json", *sets, *extra]
        done = self.started(*words) if started else self(*words)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def here(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A verb that reads this workspace."""
        return self(*arguments, "--set", f"paths.workspace={self.workspace}")

    def models(self) -> list[dict[str, Any]]:
        """`aidetect models --json`."""
        done = self.here("models", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def other_names(folder: Path) -> Path:
    """Photographs in CIFAKE's layout, unpacked: a folder whose classes are called REAL and FAKE."""
    unpack(ROOT / "tests/sample64/cifake32_layout.tar.gz", folder)
    found = folder / "sample_cifake32"
    assert {path.name for path in (found / "train").iterdir()} == {"REAL", "FAKE"}
    return found


def own_photos(folder: Path, each: int) -> Path:
    """A reader's own photos in `genuine` and `synthetic`, no splits; beside the folder their table, `photos.csv`."""
    rows = pq.read_table(ROOT / "tests/sample64/train.parquet", columns=["image", "label"]).to_pylist()
    lines = ["path,label,shop"]
    for label, name in enumerate(("genuine", "synthetic")):
        (folder / name / "phone").mkdir(parents=True)
        for i, row in enumerate([row for row in rows if row["label"] == label][:each]):
            path = folder / name / ("phone" if i % 2 else "") / f"IMG {i:04}.jpg"
            path.write_bytes(row["image"]["bytes"])
            lines.append(f"{path.relative_to(folder.parent)},{name},shop {i % 40}")
    (folder.parent / "photos.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def passed(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> "tuple[Cli, dict[str, Any]]":
    """A run whose gate asks for nothing, so that an hour's training is not needed to see all six stages run.

    On the folder with other names of the classes; workspace and environment lie where people keep things: in a folder
    with a blank and a quote in its name. Made once for all workers: read it, or copy it before changing it.
    Another run with other branches costs a few seconds instead of a training by `tests.e2e.replayed`.
    """

    def make(folder: Path) -> None:
        place = folder / PLACE
        photos = other_names(place / "photos")
        (place / ".venv").symlink_to(sys.prefix)
        (place / "workspace").mkdir()
        shutil.copy(migrated, place / "workspace" / "mlflow.db")
        gate = {"gate.min_accuracy": "0", "gate.min_f1": "0"}
        code, record = Cli(place / "workspace").run("--data", str(photos), started=True, **gate)
        assert (code, record["status"]) == (0, "deployed"), record
        (folder / "record.json").write_text(json.dumps(record))

    folder = once(tmp_path_factory, "passed", make)
    return Cli(folder / PLACE / "workspace"), json.loads((folder / "record.json").read_text())
