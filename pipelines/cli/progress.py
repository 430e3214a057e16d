"""What one sees while the pipeline runs: a line per finished stage, and the running stage's own last words."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from components.train.progress import duration
from pipelines.runs import RunRecord, list_runs, median_seconds
from pipelines.settings.names import Task

_TITLES = {
    "verify_data": "verify data",
    "train": "train",
    "evaluate": "evaluate",
    "quality_gate": "quality gate",
    "register": "register",
    "deploy": "deploy",
    "plan_catalogue": "plan",
    "score_group": "score",
    "report_catalogue": "sum up",
}


class RunProgress:
    """Listener of a run; writes to standard error, so that standard output holds the result alone."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._status: Status | None = None
        self._seen: dict[str, str] = {}
        self._since = 0.0
        self._usual: dict[Task, float] | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("compiling the pipeline")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, record: RunRecord, line: str) -> None:
        """Show a change of the record, or a line that the running stage printed."""
        for place, stage in enumerate(record.stages, 1):
            if self._seen.get(stage.name) == stage.status:
                continue
            self._seen[stage.name] = stage.status
            number = f"{place}/{len(record.stages)}"
            title = _TITLES[stage.name]
            if stage.status == "running":
                self._since = time.monotonic()
                left = self._left(record, stage.name)
                self._say(f"[{number}] {title}{left}")
                if self._status is None:
                    self._console.print(f"[dim]{_escape(f'[{number}]')}[/] {title} …{left}")
            elif stage.status in ("succeeded", "failed"):
                mark = "[green]✓[/]" if stage.status == "succeeded" else "[red]✗[/]"
                took = stage.shown if stage.cached else f"{stage.seconds:6.1f} s"
                self._console.print(f"{mark} {title:<13} {took}")
        if line:
            running = next((stage for stage in record.stages if stage.status == "running"), None)
            if running is not None:
                self._say(f"{_TITLES[running.name]} ({time.monotonic() - self._since:.0f} s)  {line}")
            # what no stage says stays on the screen: where a run was submitted, what it may cost
            if self._status is None or running is None:
                self._console.print(f"    {line}", markup=False, style="dim", soft_wrap=True)

    def _left(self, record: RunRecord, stage: Task) -> str:
        """How long until the run's end, by the workspace's earlier runs of its kind; nothing where there are none."""
        if self._usual is None:
            earlier = list_runs(Path(record.folder).parent.parent)
            kind = (record.pipeline, record.target, record.profile)
            alike = (r for r in earlier if (r.pipeline, r.target, r.profile) == kind)
            self._usual = {name: seconds for name, (seconds, _) in median_seconds(alike).items()}
        ahead = [entry.name for entry in record.stages]
        ahead = ahead[ahead.index(stage) :]
        known = [self._usual[name] for name in ahead if name in self._usual]
        # an earlier run that was refused tells nothing of the last two stages, which are short
        if not known or stage not in self._usual:
            return ""
        return f" ({duration(sum(known))} to the end, as earlier runs took)"

    def _say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(_escape(text)[: self._console.width - 4])


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
