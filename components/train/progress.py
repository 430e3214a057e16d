"""What a person sees while training runs, on stderr: a bar with the time left on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LINE_EVERY_S: Final = 15.0
_WARM_UP_S: Final = 10.0


def duration(seconds: float) -> str:
    """How long, as one says it: `less than a minute`, `about 5 min`, `about 2 h 10 min`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"


class Progress:
    """Counts work (pixels, so that quick small epochs do not promise a quick end) and says where training stands."""

    def __init__(self, total_work: int, done_work: int, visible: bool) -> None:
        self._visible = visible
        self._total = total_work
        self._done = self._done_before = done_work
        self._started = self._last_line = time.monotonic()
        self._bar = None
        self._task = None
        if visible and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("training", total=total_work, completed=done_work)
            self._bar.start()

    def advance(self, work: int, epoch: int, epochs: int, loss: float | None) -> None:
        """One step of `work` done."""
        self._done += work
        if not self._visible:
            return
        said = f"epoch {epoch + 1}/{epochs}" + (f"  loss {loss:.4f}" if loss is not None else "")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=said)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            took, done = now - self._started, self._done - self._done_before
            # the first steps load and compile: what they take says nothing of the rest; after the last one comes export
            told = ""
            if took >= _WARM_UP_S and self._done < self._total:
                told = f"  {duration(took / done * (self._total - self._done))} of training left"
            self.say(f"{said}  {min(99, int(100 * self._done / self._total))}%{told}")

    def say(self, line: str) -> None:
        """One line that stays."""
        if not self._visible:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the plain form of the progress bar

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(total_work: int, done_work: int, visible: bool) -> Iterator[Progress]:
    """A `Progress` that is closed whatever happens."""
    shown = Progress(total_work, done_work, visible)
    try:
        yield shown
    finally:
        shown.close()
