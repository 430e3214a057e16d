"""What a user reads of runs: their state, damaged records, ids that are never cut, the advice after each end."""

import fcntl
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.cli import summary
from pipelines.config import load_config
from pipelines.runs import RunRecord, find_run, list_runs, new_run
from serving.platform.errors import RunError
from tests.pipelines.conftest import Aidetect
from tests.untraced import untraced

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_whose_process_is_gone_is_lost(tmp_path: Path, aidetect: Aidetect) -> None:
    record = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    record.stage("train").status = "running"
    record.save()
    with record.held():
        assert find_run(tmp_path, record.run_id).stage("train").status == "running"
    lost = find_run(tmp_path, record.run_id)
    assert (lost.status, lost.stage("train").status) == ("lost", "failed"), "nothing runs in a run that has ended"
    listed = aidetect("runs", settings=[f"paths.workspace={tmp_path}"])
    assert record.run_id in listed.out and "lost" in listed.out
    assert json.loads((Path(record.folder) / "run.json").read_text())["status"] == "running", "looking writes nothing"


def test_the_kernel_lets_go_of_a_killed_run(tmp_path: Path) -> None:
    record = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    code = (
        "import sys, time; from pathlib import Path; from pipelines.runs import find_run\n"
        f"with find_run(Path({str(tmp_path)!r}), {record.run_id!r}).held(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert find_run(tmp_path, record.run_id).status == "running"
        holder.kill()
    assert find_run(tmp_path, record.run_id).status == "lost"


def test_an_unknown_run_names_the_newest(tmp_path: Path) -> None:
    records = [new_run(tmp_path, "local", "sample", "manual", "c0ffee") for _ in range(7)]
    with pytest.raises(RunError, match=r"no run 'abc' in .*; the newest are: .*; all: aidetect runs") as error:
        find_run(tmp_path, "abc")
    assert str(error.value).count(records[0].run_id[:8]) == 5


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"run_id":', "Invalid JSON"),
        (b"[1]", "should be an object"),
        (b"[" * 200_000, "recursion limit"),
        (b"\0" * (9 << 20), "larger than any record"),
        (b'{"run_id": "../x", "target": "local", "profile": "p", "started_at": "", "folder": ""}', "run_id"),
    ],
)
def test_a_damaged_record_is_named_not_left_out(
    tmp_path: Path, aidetect: Aidetect, content: bytes, problem: str
) -> None:
    record = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    whole = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    (Path(record.folder) / "run.json").write_bytes(content)
    listed = aidetect("runs", settings=[f"paths.workspace={tmp_path}"])
    assert (listed.code, whole.run_id in listed.out) == (0, True)
    assert f"left out: {record.folder}/run.json: damaged: " in listed.err and problem in listed.err
    shown = aidetect("runs", "show", record.run_id, settings=[f"paths.workspace={tmp_path}"])
    assert shown.code == 1 and f"{record.run_id}/run.json: damaged: " in shown.err
    assert "\n" not in shown.err.strip() and len(shown.err) < 500


@pytest.fixture
def finished(tmp_path: Path) -> RunRecord:
    record = new_run(tmp_path, "local", "sample", "drift: a long reason that does not fit in its column", "c0ffee")
    for stage in record.stages:
        stage.status, stage.seconds = "succeeded", 60.0
    record.status = "deployed"
    record.save()
    return record


@pytest.mark.parametrize("width", [60, 80])
def test_ids_are_never_cut(finished: RunRecord, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    new_run(Path(finished.folder).parent.parent, "local", "production", "manual", "c0ffee")
    out = Console(width=width, record=True, highlight=False, soft_wrap=True, file=io.StringIO())
    monkeypatch.setattr(summary, "console", lambda: out)
    records = list(list_runs(Path(finished.folder).parent.parent))
    summary.print_runs(records)
    shown = out.export_text()
    assert "…" not in shown
    for record in records:
        assert record.run_id in shown


def test_in_a_pipe_a_run_is_a_line_and_every_sign_arrives(finished: RunRecord) -> None:
    finished.reason = (
        "drift: Zähler über ½ \u2713 \U0001f600, a reason that is far longer than what any column of 80 has room for"
    )
    finished.save()
    workspace = Path(finished.folder).parent.parent
    words = [
        sys.executable,
        "-c",
        "from pipelines.cli import main; main()",
        "runs",
        "--set",
        f"paths.workspace={workspace}",
    ]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "40"}
    ascii_only |= {"FORCE_COLOR": "", "TTY_COMPATIBLE": "0", "PYTHONIOENCODING": "ascii"}
    shown, told = (
        subprocess.run([*words, *more], cwd=ROOT, capture_output=True, env=untraced() | ascii_only, check=True).stdout
        for more in ([], ["--json"])
    )
    (line,) = (line for line in shown.decode("ascii").splitlines() if finished.run_id in line)
    assert json.loads(f'"{line.strip()}"').endswith(finished.reason)
    assert json.loads(told)[0]["reason"] == finished.reason


@pytest.mark.parametrize(
    ("workspace", "profile", "advice"),
    [
        ("workspace", "sample", "aidetect serve, then: curl"),
        ("elsewhere", "sample", "aidetect serve --set paths.workspace=elsewhere, then: curl"),
        ("a place", "local", "aidetect serve --profile local --set paths.workspace='a place', then: curl"),
    ],
)
def test_the_advice_fits_the_workspace_and_the_profile(
    finished: RunRecord, workspace: str, profile: str, advice: str
) -> None:
    config = load_config(profile, [f"paths.workspace={workspace}"], ROOT / "pipeline_config.yaml", {})
    finished.profile = profile
    assert summary._next_step(finished, config).startswith(advice)
    finished.status = "failed"
    assert f"run.log), then: aidetect run --resume {finished.run_id}" in summary._next_step(finished, config)
    finished.status = "interrupted"
    assert summary._next_step(finished, config).startswith(f"aidetect run --resume {finished.run_id}")


def test_a_lock_is_looked_at_without_taking_it(tmp_path: Path) -> None:
    record = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    with record.held():
        find_run(tmp_path, record.run_id)
        with (Path(record.folder) / "run.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
