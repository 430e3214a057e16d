"""What a run in the cloud left in its stores, brought into the run's folder: verdict, figures and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from components.artifacts.deployment import DEPLOYMENT_JSON
from components.artifacts.evaluation import EVALUATION_JSON
from components.artifacts.verdict import VERDICT_JSON, VERDICT_MD
from components.platform.cloud_storage import fetch_file
from components.platform.google_cloud import google_errors
from components.platform.tracking import fetch_recorded
from pipelines.conclusion import REPORTS
from pipelines.runs import RunRecord
from pipelines.settings.names import Stage, Task
from pipelines.settings.pipeline import PipelineConfig
from serving.platform.cloud_storage import SCHEME, objects
from serving.platform.errors import StageError

_FILES: Final[tuple[tuple[Stage, str, tuple[str, ...]], ...]] = (
    ("quality_gate", "verdict", (VERDICT_JSON, VERDICT_MD)),
    ("evaluate", "evaluation", (EVALUATION_JSON,)),
    ("deploy", "deployment", (DEPLOYMENT_JSON,)),
)
"""Stage, its artifact (a folder), and the files of it that are worth a copy: kilobytes, never the data or the model."""

_ANSWERS: Final[tuple[tuple[Stage, str], ...]] = (("verify_data", "dataset"), ("train", "bundle"))
"""What later stages read of those that an earlier run may answer for: a folder each."""


@dataclass(frozen=True)
class Output:
    """One artifact of a finished stage, as the target describes it."""

    uri: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


Outputs = Mapping[tuple[Task, str], Output]
"""(Stage, artifact name) -> where it lies."""


def collect(record: RunRecord, outputs: Outputs) -> list[str]:
    """Copy verdict, figures and reports into the run's folder.

    Returns:
        What could not be copied, one line each; the record then holds the headline that the target itself keeps.
    """
    missing = []
    for stage, artifact, names in _FILES:
        found = outputs.get((stage, artifact))
        if found is None:
            continue
        folder = Path(record.folder) / "artifacts" / stage
        try:
            for name in names:
                _fetch(f"{found.uri.rstrip('/')}/{name}", folder / artifact / name)
            record.stage(stage).output_dir = str(folder)
        except StageError as error:
            missing.append(str(error))
    for task, artifact, name in REPORTS:
        report = outputs.get((task, artifact))
        if report is not None:
            try:
                _fetch(report.uri, Path(record.folder) / name)
            except StageError as error:
                missing.append(str(error))
    if ("quality_gate", "verdict") in outputs:
        record.headline = str(outputs["quality_gate", "verdict"].metadata.get("headline", ""))
    return missing


def collect_tracked(record: RunRecord, config: PipelineConfig) -> list[str]:
    """The same from the tracking server, for a target whose artifacts lie in a store of its own.

    Returns:
        What could not be copied, one line each.
    """
    missing = []
    for stage, artifact, _ in _FILES[:2]:
        if not record.ran(stage):
            continue
        folder = Path(record.folder) / "artifacts" / stage
        try:
            fetch_recorded(config.tracking_uri, config.tracking.experiment, record.run_id, artifact, folder)
            record.stage(stage).output_dir = str(folder)
        except StageError as error:
            missing.append(str(error))
    return missing


def _fetch(uri: str, to: Path) -> None:
    if not uri.startswith(SCHEME):
        raise StageError(f"{uri or 'an artifact without an address'}: not in Cloud Storage")
    if not to.is_file():
        fetch_file(uri, to)


def expired(record: RunRecord, outputs: Outputs) -> str:
    """Of a failed run: which answer of the cache points to what was deleted since; empty where none does."""
    for stage, name in _ANSWERS:
        answer = outputs.get((stage, name))
        if answer is None or not record.ran(stage) or not record.stage(stage).cached:
            continue
        try:
            with google_errors(f"list {answer.uri}"):
                gone = next(objects(answer.uri), None) is None
        except StageError:
            continue
        if gone:
            return f"the cache answered {stage} with {answer.uri}, which is deleted; run with vertex.caching=false"
    return ""
