"""What every place has that the pipeline can run at, and how a run elsewhere is followed."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from pipelines.runs import RunRecord
from pipelines.settings.names import Stage
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.scheduler import Scheduler
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from kfp import dsl

_LOOKS: Final = 5
"""Looks at a run that may fail one after another; each has asked for a while by itself."""
Listener = Callable[[RunRecord, str], None]
"""Called with the record and a line a stage printed (empty when only the record changed)."""


class Target(Protocol):
    """One place where the pipeline runs, with the configuration that it was opened with."""

    config: PipelineConfig
    """As this place sees it, its paths absolute where they are read on this disk."""
    poll_s: float
    """Pause between two looks at a run that goes on there."""

    @property
    def caches(self) -> bool:
        """Whether an earlier run may answer for a stage."""
        ...

    def place(self, stage: Stage, task: "dsl.PipelineTask") -> None:
        """Set a stage's task for this place: image, machine, caching.

        Raises:
            CompileError: an image that must not be sent there.
        """
        ...

    def prepare(self, spec: dict[str, Any], parameters: dict[str, Any], ask: bool = True) -> list[str]:
        """Look at all that must hold before a run: what the configuration tells, then what only the place can.

        Args:
            spec: as compiled for this place.
            parameters: as the run will be started with.
            ask: False: only what is known without asking.

        Returns:
            Notes for the user, one line each.

        Raises:
            PreflightError: the run would be refused or wasted; nothing was sent.
            StageError: the place cannot be reached.
        """
        ...

    def run(self, record: RunRecord, parameters: dict[str, Any], listener: Listener) -> None:
        """Run the spec in the record's folder to its end, or submit it where it goes on by itself; keeps the record.

        Raises:
            StageError: the place refused it or cannot be reached.
        """
        ...

    def refresh(self, record: RunRecord) -> list[str]:
        """Ask once how a submitted run stands and write it into its record.

        Returns:
            What of an ended run's results could not be read, one line each.

        Raises:
            StageError: the place cannot be asked.
        """
        ...

    def cancel(self, record: RunRecord) -> None:
        """Ask for a submitted run to be stopped.

        Raises:
            StageError: the place refused.
        """
        ...

    def scheduler(self) -> Scheduler:
        """The recurring runs of the configured name.

        Raises:
            ScheduleError: runs here start on no schedule.
        """
        ...


def follow(target: Target, record: RunRecord, listener: Listener) -> None:
    """Follow a submitted run to its end, telling the listener of every stage that changes; no other run is touched.

    Raises:
        StageError: the place cannot be asked.
    """
    said: set[str] = set()
    blind = 0
    while record.is_open:
        try:
            notes, blind = target.refresh(record), 0
        except StageError as error:
            blind += 1
            if blind == _LOOKS or not _passes(error):
                goes_on = f"the run goes on; follow it: aidetect runs follow {record.run_id}"
                raise StageError(f"{error}; {goes_on}") from error
            notes = [f"{error}; asked again"]
        listener(record, "")
        for note in notes:
            if note not in said:
                listener(record, f"note: {note}")
        said.update(notes)
        if record.is_open:
            time.sleep(target.poll_s)


def _passes(error: StageError) -> bool:
    """Whether a look failed for what may be over at the next: a place that was out of reach or overloaded."""
    from google.api_core.exceptions import RetryError

    return isinstance(error.__cause__, (RetryError, OSError))


def set_machine(task: "dsl.PipelineTask", stage: Stage, config: PipelineConfig, accelerator: str) -> None:
    """Give a stage's task its image and the limits of its machine.

    Args:
        task: of the stage.
        stage: which one.
        config: images and machines.
        accelerator: what the place calls the stage's accelerator, where it has one.
    """
    machine = config.machines.of(stage)
    task.set_container_image(config.images.of(stage))
    task.set_cpu_limit(str(machine.cpu)).set_memory_limit(f"{machine.memory_gb}G")
    if machine.accelerator_count:
        task.set_accelerator_type(accelerator).set_accelerator_limit(machine.accelerator_count)
