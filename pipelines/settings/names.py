"""The words that configuration, command line and records share: stages and the places a run can go to."""

from typing import Final, Literal

Stage = Literal["verify_data", "train", "evaluate", "quality_gate", "register", "deploy"]
STAGES: Final[tuple[Stage, ...]] = ("verify_data", "train", "evaluate", "quality_gate", "register", "deploy")
TRAIN_STAGES: Final[frozenset[Stage]] = frozenset({"train", "evaluate"})
"""Stages that need torch's image; every other one runs in the light image."""

TargetName = Literal["local", "docker", "vertex", "kubeflow"]
CloudName = Literal["vertex", "kubeflow"]
"""Targets that start runs by themselves, on a schedule."""


def stage_of(task: str) -> Stage | None:
    """The stage that KFP names `task` (`verify-data`), or None for a task that is none, such as a condition."""
    return next((stage for stage in STAGES if stage.replace("_", "-") == task), None)
