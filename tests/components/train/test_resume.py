"""kill -9 and torchrun, on real processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from components.train.checkpoint import Checkpoints
from components.train.config import TrainConfig
from components.train.processes import wanted
from pipelines.cli.app import run_app
from serving.detector import bundle
from serving.platform.errors import StageError
from tests.components.train.conftest import Trained, fit
from tests.components.train.packed import TINY
from tests.untraced import untraced

ROOT = Path(__file__).resolve().parents[3]


def arguments(dataset: Path, out: Path, **settings: object) -> list[str]:
    file = out.with_suffix(".yaml")
    file.write_text(json.dumps({"base": {"train": TINY | settings}, "profiles": {"sample": {}}}))
    words = ["-m", "pipelines", "train", "--dataset", str(dataset), "-o", str(out)]
    return [*words, "--config", str(file), "--no-track", "--json"]


def test_a_killed_training_resumes_to_the_same_weights(
    toy_data: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"checkpoint_dir": str(tmp_path / "checkpoints")}
    words = arguments(toy_data, tmp_path / "b", **settings)
    killed = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=untraced()
    )
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("epoch 1/3 at"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "b").exists()

    # the same words; this process has torch already
    assert run_app(words[2:]) == 0
    again = capsys.readouterr()
    summary = json.loads(again.out)
    # a busy machine may have let it finish more of them before the kill
    assert 1 <= summary["resumed_from_epoch"] <= 3
    assert "resumed after epoch" in again.err
    assert not any((tmp_path / "checkpoints").iterdir())  # a finished training keeps none

    resumed, uninterrupted = (load_file(folder / bundle.WEIGHTS) for folder in (tmp_path / "b", trained.bundle))
    assert all(np.array_equal(resumed[name], value) for name, value in uninterrupted.items())


@pytest.mark.parametrize(("gpus", "processes", "started"), [(0, 0, 1), (0, 2, 2), (1, 2, 1), (4, 0, 4), (4, 2, 2)])
def test_processes_are_as_many_as_asked_for_but_never_more_than_gpus(
    gpus: int, processes: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train.processes._gpus", lambda: gpus)
    assert wanted(TrainConfig(processes=processes)) == started
    assert wanted(TrainConfig(processes=processes, device="cpu")) == (processes or 1)
    assert wanted(TrainConfig(processes=processes, device="mps")) == 1


@pytest.mark.system  # three processes that each load torch: the most expensive of all quick tests
def test_two_processes_reach_the_metrics_of_one(toy_data: Path, trained: Trained, tmp_path: Path) -> None:
    # the stage starts them itself, as it does for two GPUs
    command = [sys.executable, *arguments(toy_data, tmp_path / "b", processes=2, device="cpu")]
    done = subprocess.run(command, cwd=ROOT, env=untraced(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)  # one document: the main process alone talks
    assert bundle.verify(tmp_path / "b").digest == summary["digest"]
    assert summary["val_roc_auc"] == pytest.approx(trained.summary.val_roc_auc, abs=0.05)
    assert summary["val_roc_auc"] >= 0.95


def killed_once(command: list[str]) -> tuple[int, str]:
    """Run a training, kill -9 the younger of its processes after its first epoch; its status and what it said."""
    told: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=untraced(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as first:
        assert first.stdout is not None
        for line in first.stdout:
            told.append(line)
            if "epoch 1/" in line:
                family = psutil.Process(first.pid).children(recursive=True)
                # torchrun has the module among its words too
                trains = [
                    p for p in family if p.cmdline()[2:3] == ["components.train.processes"] or "-u" in p.cmdline()
                ]
                max(trains, key=lambda p: p.create_time()).kill()
                break
        told += first.stdout.readlines()
        first.wait(120)
    return first.returncode, "".join(told)


@pytest.mark.system
@pytest.mark.nightly
def test_where_one_of_two_processes_is_killed_the_stage_fails_and_goes_on(toy_data: Path, tmp_path: Path) -> None:
    settings = {"epochs": 3, "processes": 2, "device": "cpu", "checkpoint_dir": str(tmp_path / "checkpoints")}
    command = [sys.executable, *arguments(toy_data, tmp_path / "b", **settings)]
    code, said = killed_once(command)
    # one of two was killed: the stage fails, and nothing of it is left or passes for a bundle
    assert code == 1 and "error: training in 2 processes ended with status 1" in said, said[-3000:]
    assert not (tmp_path / "b").exists()
    again = subprocess.run(command, cwd=ROOT, env=untraced(), capture_output=True, text=True, timeout=900, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    figures = json.loads(again.stdout)
    assert 1 <= figures["resumed_from_epoch"] < 3
    one = fit(toy_data, tmp_path / "scratch", TrainConfig.model_validate(TINY))
    assert figures["val_roc_auc"] == pytest.approx(one.history[-1]["val_roc_auc"], abs=0.05)
    assert bundle.verify(tmp_path / "b").digest == figures["digest"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints.of(tmp_path, TrainConfig.model_validate(TINY), "data", 1)
    assert checkpoints.load() is None
    checkpoints.save({"epoch": 1})
    assert checkpoints.load() == {"epoch": 1}
    assert checkpoints.folder is not None
    (checkpoints.folder / "last.pt").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(StageError, match=r"last\.pt: cannot be read .*delete it"):
        checkpoints.load()


def test_checkpoints_belong_to_one_configuration_and_dataset(tmp_path: Path) -> None:
    def folder(fingerprint: str = "data", **settings: object) -> Path | None:
        return Checkpoints.of(tmp_path, TrainConfig.model_validate(TINY | settings), fingerprint, 1).folder

    assert folder() == folder(checkpoint_dir="elsewhere", loader_threads=7, threads=3)
    assert len({folder(), folder(seed=1), folder(epochs=9), folder("other data")}) == 4
