"""KFP's own local runner as a child process: the run's state, its log, and its end however that comes."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from components.platform.signals import interrupts_held, sigterm_raises
from pipelines.conclusion import REPORTS, conclude
from pipelines.config import child_environment
from pipelines.runs import PARAMETERS_FILE, PIPELINE_FILE, REUSED_FILE, RunRecord
from pipelines.settings.names import task_of
from pipelines.targets.log import LogReader
from pipelines.targets.target import Listener
from serving.platform.errors import StageError
from serving.platform.processes import tied

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


def run_spec(record: RunRecord, listener: Listener, *options: str) -> None:
    """Run the spec in the record's folder to its end and complete the record.

    The folder receives `run.log` (everything the stages printed) and `artifacts/` (KFP's pipeline root).

    Args:
        record: of the run.
        listener: told of every change; an error of its own ends the run as interrupted.
        options: further arguments of `pipelines.targets.kfp_process`.
    """
    folder = Path(record.folder)
    arguments = ["--spec", str(folder / PIPELINE_FILE), "--parameters", str(folder / PARAMETERS_FILE)]
    arguments += ["--root", str(folder / "artifacts"), *options]
    if (folder / REUSED_FILE).is_file():
        arguments += ["--reused", str(folder / REUSED_FILE)]
    started = time.monotonic()
    process: subprocess.Popen[str] | None = None
    reader = LogReader(record, listener)
    try:
        with sigterm_raises(), (folder / "run.log").open("w") as log:
            with interrupts_held():
                # a session of its own: an interrupt must reach every stage's process, and only once
                process = subprocess.Popen(
                    tied("pipelines.targets.kfp_process", *arguments),
                    stdin=subprocess.PIPE,
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
                reader.read(line)
        code = process.wait()
    except (KeyboardInterrupt, StageError):
        _interrupted(record, process)
    except BaseException:
        # nobody listens any more, or this program is at fault: no stage goes on unseen
        _interrupted(record, process)
        raise
    else:
        _relocate(record)
        conclude(record, "failed" if code else "succeeded", reader.last_error)
        _name_reports(record)
    finally:
        if process is not None and process.stdin is not None:
            process.stdin.close()
        record.seconds = round(time.monotonic() - started, 2)
        record.save()


def _interrupted(record: RunRecord, process: "subprocess.Popen[str] | None") -> None:
    if process is not None:
        _stop(process)
    _relocate(record)
    again = f"aidetect run --resume {record.run_id}"
    conclude(record, "cancelled", f"interrupted; go on with: {again} (training goes on from its last checkpoint)")


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield _ANSI.sub("", line)


def _name_reports(record: RunRecord) -> None:
    """Give the HTML reports names that a browser opens; KFP keeps them without an ending."""
    for stage, artifact, name in REPORTS:
        if (
            record.ran(stage)
            and record.stage(stage).output_dir
            and (source := record.output(stage, artifact)).is_file()
        ):
            shutil.copyfile(source, Path(record.folder) / name)


def _relocate(record: RunRecord) -> None:
    """Point every stage at its real folder, known for certain only after the run."""
    for path in (Path(record.folder) / "artifacts").glob("*/*"):
        if (stage := task_of(path.name)) is not None:
            record.stage(stage).output_dir = str(path)


def _stop(process: "subprocess.Popen[str]") -> None:
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
