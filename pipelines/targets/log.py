"""What KFP's local runner prints, read back into the state of a run."""

import re
import time
from pathlib import Path
from typing import Final

from pipelines.runs import RunRecord
from pipelines.settings.names import Task, task_of
from pipelines.targets.target import Listener
from serving.platform.errors import AidetectError, system_line

_STARTED: Final = re.compile(r"Executing task '([\w-]+)'")
_FINISHED: Final = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_OUR_ERROR: Final = re.compile(rf"^    {re.escape(AidetectError.__module__)}\.\w+: (.+)$")
"""An error of this project's, all of which stand in one module: its message alone is the line a user needs."""
_ANY_ERROR: Final = re.compile(r"^\s{4}(\w[\w.]*(?:Error|Exception|Interrupt)\b.*)$")
_EXECUTOR_INPUT: Final = re.compile(r"\[KFP Executor .*Got executor_input:")
_KFP_NOISE: Final = re.compile(
    r"^\s*\[KFP Executor|^\d\d:\d\d:\d\d\.\d+ - |^-{20,}$|^    Traceback|^      File |^        "
    r"|^    The above exception was|^    During handling of the above"
)


class LogReader:
    """Turns KFP's log lines into the state of the record, and passes on what the stages themselves say."""

    def __init__(self, record: RunRecord, listener: Listener) -> None:
        self._record = record
        self._listener = listener
        self._since = 0.0
        self._running: Task | None = None
        self._in_executor_input = False
        self.last_error = ""
        """One line: the message alone of an error that is ours, type and message of another."""

    def read(self, line: str) -> None:
        """Take one line, with its newline."""
        if (match := _STARTED.search(line)) and (stage := task_of(match[1])):
            self._since, self._running = time.monotonic(), stage
            self._record.stage(stage).status = "running"
            self._record.stage(stage).output_dir = str(self._output_dir(match[1]))
            self._changed()
        elif (match := _FINISHED.search(line)) and (stage := task_of(match[1])):
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
            self.last_error = system_line(match[1].strip())
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
