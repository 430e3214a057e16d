"""Runs that go on elsewhere: ask how one stands, follow it, cancel it, wherever it was submitted."""

from types import ModuleType
from typing import Final

from pipelines.config import PipelineConfig
from pipelines.runs import RunRecord
from pipelines.targets.local import Listener
from serving.platform.errors import StageError

_PLACES: Final = ("vertex", "kubeflow")


def is_open(record: RunRecord) -> bool:
    """Whether the run was submitted and had not ended when it was last seen."""
    return record.target in _PLACES and record.status == "submitted" and bool(record.resource)


def refresh(record: RunRecord, config: PipelineConfig) -> list[str]:
    """Ask once how a run stands and write it into its record.

    Returns:
        What of an ended run's results could not be read, one line each.

    Raises:
        StageError: the run is not one of the cloud's, or the cloud cannot be asked.
    """
    notes: list[str] = _place(record).refresh(record, config)
    return notes


def follow(record: RunRecord, config: PipelineConfig, listener: Listener) -> RunRecord:
    """Follow a run to its end, telling the listener of every stage that changes; one that ended is left as it is.

    Raises:
        StageError: the run is not one of the cloud's, or the cloud cannot be asked.
    """
    place = _place(record)
    if is_open(record):
        place.follow(record, config, listener)
    return record


def cancel(record: RunRecord, config: PipelineConfig) -> None:
    """Ask for a run to be stopped.

    Raises:
        StageError: the run has ended, is not one of the cloud's, or the cloud refused.
    """
    place = _place(record)
    if not is_open(record):
        raise StageError(f"run {record.run_id} has ended ({record.status}); there is nothing to cancel")
    place.cancel(record, config)


def _place(record: RunRecord) -> ModuleType:
    """The module of the target that the run was submitted to."""
    from pipelines.targets import kubeflow, vertex

    if record.target not in _PLACES or not record.resource:
        raise StageError(
            f"run {record.run_id} is not in the cloud (target {record.target}, {record.status}); "
            "a run on this machine is stopped with Ctrl-C where it runs"
        )
    return vertex if record.target == "vertex" else kubeflow
