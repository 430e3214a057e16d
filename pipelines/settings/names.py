"""The words that configuration, command line and records share: stages and the places a run can go to."""

from typing import Final, Literal

Stage = Literal["verify_data", "train", "evaluate", "quality_gate", "register", "deploy"]
STAGES: Final[tuple[Stage, ...]] = ("verify_data", "train", "evaluate", "quality_gate", "register", "deploy")
TRAIN_STAGES: Final[frozenset[Stage]] = frozenset({"train", "evaluate"})
"""Stages that need torch's image; every other one runs in the light image."""
CACHED: Final[frozenset[Stage]] = frozenset({"verify_data", "train"})
"""Stages that an earlier run may answer for. What follows reads the registry, which is no input: it always runs."""

CatalogueTask = Literal["plan_catalogue", "score_group", "report_catalogue"]
CATALOGUE_TASKS: Final[tuple[CatalogueTask, ...]] = ("plan_catalogue", "score_group", "report_catalogue")
Task = Literal[Stage, CatalogueTask]
"""What a run consists of; `score_group` stands for as many as there are groups."""

PipelineName = Literal["training", "catalogue"]
TASKS: Final[dict[PipelineName, tuple[Task, ...]]] = {"training": STAGES, "catalogue": CATALOGUE_TASKS}
JOB_NAMES: Final[dict[PipelineName, str]] = {
    "training": "ai-product-photo-detector",
    "catalogue": "ai-product-photo-catalogue",
}
"""What the runs of a pipeline are called in a cloud."""

TargetName = Literal["local", "docker", "vertex", "kubeflow"]
CloudName = Literal["vertex", "kubeflow"]
"""Targets that start runs by themselves, on a schedule."""


def task_of(name: str) -> Task | None:
    """The task that KFP calls `name` (`verify-data`), or None for what is none of ours, such as a condition."""
    return next((task for tasks in TASKS.values() for task in tasks if task.replace("_", "-") == name), None)
