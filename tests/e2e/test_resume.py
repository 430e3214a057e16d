"""`aidetect run --resume`: what an earlier run finished is taken over, what it did not is done; nobody runs unseen."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import ROOT, SMALL, Cli


def broken_at_register(record: dict[str, Any], earlier: Path, workspace: Path) -> str:
    """The run of `record` as if it had failed at register, in a workspace of its own; returns its id."""
    folder = workspace / "runs" / record["run_id"]
    folder.mkdir(parents=True)
    for entry in record["stages"][4:]:
        entry["status"] = "failed" if entry["name"] == "register" else "pending"
    text = json.dumps(record | {"status": "failed", "folder": str(folder)})
    (folder / "run.json").write_text(text)
    parameters = (Path(record["folder"]) / "parameters.json").read_text()
    (folder / "parameters.json").write_text(parameters.replace(str(earlier), str(workspace)))
    return str(record["run_id"])


def test_a_run_goes_on_at_the_stage_that_failed(
    passed: tuple[Cli, dict[str, Any]], migrated: Path, tmp_path: Path
) -> None:
    earlier, record = passed
    run_id = broken_at_register(json.loads(json.dumps(record)), earlier.workspace, tmp_path)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    cli = Cli(tmp_path)
    done = cli.here("run", "--resume", run_id, "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert (again["status"], again["reason"]) == ("deployed", f"resumes {run_id}")
    assert again["metrics"] == record["metrics"]
    seconds = {stage["name"]: stage["seconds"] for stage in again["stages"]}
    assert max(seconds[name] for name in ("verify_data", "train", "evaluate", "quality_gate")) < seconds["deploy"]
    log = (Path(again["folder"]) / "run.log").read_text()
    assert log.count("taken over from") == 4
    (manifest,) = Path(again["folder"]).glob("artifacts/*/train/bundle/manifest.json")
    assert [version["aliases"] for version in cli.models()] != []
    # the new folder is whole by itself
    assert (Path(again["folder"]) / "evaluation.html").is_file()
    assert json.loads(manifest.read_text()) == json.loads(
        next(Path(record["folder"]).glob("artifacts/*/train/bundle/manifest.json")).read_text()
    )
    refused = cli.here("run", "--resume", again["run_id"])
    assert refused.returncode == 1 and "has nothing left to do: deployed" in refused.stderr
    for words in (["gate", again["run_id"]], ["gate", again["folder"]]):
        easy = [f"gate.{name}=0" for name in ("min_accuracy", "min_f1", "min_test_images")]
        judged = cli.here(*words, "--json", *(part for knob in easy for part in ("--set", knob)))
        assert judged.returncode == 0, judged.stderr


def test_a_refused_run_is_judged_by_another_policy_without_another_training(
    passed: tuple[Cli, dict[str, Any]], migrated: Path, tmp_path: Path
) -> None:
    earlier, record = passed
    run_id = broken_at_register(json.loads(json.dumps(record)), earlier.workspace, tmp_path)
    shutil.copy(migrated, tmp_path / "mlflow.db")
    cli = Cli(tmp_path)
    done = cli.here("run", "--resume", run_id, "--set", "gate.min_test_images=1000000")
    assert done.returncode == 2, done.stderr
    (refused,) = {path.parent.name for path in tmp_path.glob("runs/*/run.json")} - {run_id}
    assert f"without another training: aidetect run --resume {refused} --set paths.workspace=" in done.stdout
    again = cli.here("run", "--resume", "last")
    assert again.returncode == 1 and f"run {refused} was refused, and nothing has changed" in again.stderr
    done = cli.here(
        "run", "--resume", "last", "--json", "--set", "gate.min_test_images=1", "--set", "deploy.auto=false"
    )
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    assert (judged["status"], judged["reason"]) == ("registered", f"resumes {refused}")
    assert (Path(judged["folder"]) / "run.log").read_text().count("taken over from") == 3


def is_a_stage(process: psutil.Process) -> bool:
    """Whether it runs a stage; one that has ended since it was listed (git, of the revision) does not."""
    try:
        return "executor_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_a_killed_command_leaves_no_process_and_a_lost_run(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    settings = {**SMALL, "train.epochs": "500", "paths.workspace": str(tmp_path)}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "run", *sets],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    children: list[psutil.Process] = []
    while time.monotonic() < deadline and len(children) < 2:
        time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        children = children if any(map(is_a_stage, children)) else []
    assert len(children) >= 2, "no stage began"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(children, timeout=60)[1]
    listed = json.loads(Cli(tmp_path).here("runs", "list", "--json").stdout)
    assert [run["status"] for run in listed] == ["lost"]


def test_who_stops_listening_ends_the_run_as_interrupted(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    settings = {**SMALL, "train.epochs": "500", "paths.workspace": str(tmp_path)}
    sets = " ".join(f"--set {key}={value}" for key, value in settings.items())
    done = subprocess.run(
        f"{sys.executable} -m pipelines run {sets} 2>&1 | head -n 1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0
    (file,) = tmp_path.glob("runs/*/run.json")
    record = json.loads(file.read_text())
    assert record["status"] == "interrupted"
    assert f"aidetect run --resume {record['run_id']}" in record["error"]
