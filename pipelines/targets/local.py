"""Run the compiled spec on this machine: the file that would be submitted, under KFP's subprocess runner."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from components.artifacts.evaluation import read_evaluation
from components.artifacts.verdict import VERDICT_JSON, read_verdict
from components.platform.signals import interrupts_held, sigterm_raises
from pipelines.compile import PARAMETERS_FILE, PIPELINE_FILE
from pipelines.config import child_environment
from pipelines.places import Stage, stage_of
from pipelines.runs import RunRecord
from pipelines.targets.docker import CONTAINERS_FILE
from serving.platform.errors import AidetectError, StageError

Listener = Callable[[RunRecord, str], None]
"""Called with the record and a line a stage printed (empty when only the record changed)."""

REPORTS: Final[tuple[tuple[Stage, str, str], ...]] = (
    ("verify_data", "report", "data.html"),
    ("train", "curves", "curves.html"),
    ("evaluate", "report", "evaluation.html"),
)
"""Stage, its artifact, and the name under which the run's folder keeps it."""

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_STARTED: Final = re.compile(r"Executing task '([\w-]+)'")
_FINISHED: Final = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_OUR_ERROR: Final = re.compile(rf"^    {re.escape(AidetectError.__module__)}\.\w+: (.+)$")
"""An exception of this project's: its message alone is the line a user needs."""
_ANY_ERROR: Final = re.compile(r"^\s{4}(\w[\w.]*(?:Error|Exception|Interrupt)\b.*)$")
_EXECUTOR_INPUT: Final = re.compile(r"\[KFP Executor .*Got executor_input:")
_KFP_NOISE: Final = re.compile(
    r"^\s*\[KFP Executor|^\d\d:\d\d:\d\d\.\d+ - |^-{20,}$|^    Traceback|^      File |^        "
)


def run_spec(record: RunRecord, listener: Listener, runner: str = "subprocess") -> RunRecord:
    """Run the spec in the record's folder to its end and complete the record.

    The folder receives `run.log` (everything the stages printed) and `artifacts/` (KFP's pipeline root).
    """
    folder = Path(record.folder)
    command = [sys.executable, "-m", "pipelines.targets.kfp_process", "--spec", str(folder / PIPELINE_FILE)]
    command += ["--parameters", str(folder / PARAMETERS_FILE), "--root", str(folder / "artifacts")]
    command += ["--runner", runner]
    if runner == "docker":
        command += ["--containers", str(folder / CONTAINERS_FILE)]
    started = time.monotonic()
    process: subprocess.Popen[str] | None = None
    follower = _Follower(record, listener)
    try:
        with sigterm_raises(), (folder / "run.log").open("w") as log:
            with interrupts_held():
                # a session of its own: an interrupt must reach every stage's process, and only once
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=child_environment(),
                    start_new_session=True,
                )
            for line in _lines(process):
                log.write(line)
                log.flush()
                follower.read(line)
        code = process.wait()
    except (KeyboardInterrupt, StageError):
        if process is not None:
            _stop(process)
        record.status, record.error = "interrupted", "interrupted; run again, training goes on from its last checkpoint"
    else:
        _conclude(record, code, follower.last_error)
        _name_reports(record)
    finally:
        if process is not None and process.poll() is None:
            _stop(process)
        record.seconds = round(time.monotonic() - started, 2)
        record.save()
    return record


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield _ANSI.sub("", line)


class _Follower:
    """Turns KFP's log lines into the state of the record, and passes on what the stages themselves say."""

    def __init__(self, record: RunRecord, listener: Listener) -> None:
        self._record = record
        self._listener = listener
        self._since = 0.0
        self._running: Stage | None = None
        self._in_executor_input = False
        self.last_error = ""

    def read(self, line: str) -> None:
        if (match := _STARTED.search(line)) and (stage := stage_of(match[1])):
            self._since, self._running = time.monotonic(), stage
            self._record.stage(stage).status = "running"
            self._record.stage(stage).output_dir = str(self._output_dir(match[1]))
            self._changed()
        elif (match := _FINISHED.search(line)) and (stage := stage_of(match[1])):
            entry = self._record.stage(stage)
            entry.status = "succeeded" if match[2] == "SUCCESS" else "failed"
            entry.seconds = round(time.monotonic() - self._since, 2)
            self._running = None
            self._changed()
        elif self._running is not None:
            self._said(line)

    def _said(self, line: str) -> None:
        if _EXECUTOR_INPUT.search(line):
            self._in_executor_input = True
        elif self._in_executor_input:
            # KFP prints the task's whole input, indented JSON, and closes it at its own margin
            self._in_executor_input = line.rstrip() != "    }"
        elif match := _OUR_ERROR.match(line) or _ANY_ERROR.match(line):
            self.last_error = match[1].strip()
        elif line.strip() and not _KFP_NOISE.match(line):
            self._listener(self._record, line.strip())

    def _changed(self) -> None:
        self._record.save()
        self._listener(self._record, "")

    def _output_dir(self, task: str) -> Path:
        # KFP names the folder after the pipeline and the second it started; there is one pipeline in this root
        root = Path(self._record.folder) / "artifacts"
        pipelines = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        return (pipelines[-1] if pipelines else root) / task


def _conclude(record: RunRecord, code: int, last_error: str) -> None:
    _relocate(record)
    failed = [stage.name for stage in record.stages if stage.status in ("failed", "running")]
    if record.ran("evaluate"):
        evaluation = read_evaluation(record.output("evaluate", "evaluation"))
        record.metrics = {name: metric.value for name, metric in evaluation.test.metrics.items()}
    verdict = None
    if record.ran("quality_gate"):
        verdict = read_verdict(record.output("quality_gate", "verdict"))
        record.headline = verdict.headline
    if code != 0 or failed:
        where = f"{failed[0]}: " if failed else ""
        record.status, record.error = "failed", f"{where}{last_error or 'failed; see run.log'}"
    elif verdict is None:
        record.status, record.error = "failed", f"the run ended without a verdict ({VERDICT_JSON}); see run.log"
    elif not verdict.passed:
        record.status = "refused"
    elif not record.ran("register"):
        # KFP's local runner can take a condition's false branch in silence; a passed gate must lead somewhere
        record.status, record.error = "failed", "the gate passed but register did not run; see run.log"
    else:
        record.status = "deployed" if record.ran("deploy") else "registered"


def _name_reports(record: RunRecord) -> None:
    """Give the HTML reports names that a browser opens; KFP keeps them without an ending."""
    for stage, artifact, name in REPORTS:
        if record.stage(stage).output_dir and (source := record.output(stage, artifact)).is_file():
            shutil.copyfile(source, Path(record.folder) / name)


def _relocate(record: RunRecord) -> None:
    """Point every stage at its real folder, known for certain only after the run."""
    for path in (Path(record.folder) / "artifacts").glob("*/*"):
        if (stage := stage_of(path.name)) is not None:
            record.stage(stage).output_dir = str(path)


def _stop(process: subprocess.Popen[str]) -> None:
    """End the runner and every stage it started, and wait until the last of them is gone."""
    for sig, patience_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
            while time.monotonic() < deadline:
                process.poll()  # reaps the leader; its children belong to the group and are waited for below
                os.killpg(process.pid, 0)
                time.sleep(0.05)
            continue
        process.wait(5.0)
        return
