"""How a run ended, wherever it ran: the one place that gives a record its last status."""

from pathlib import Path
from typing import Final, Literal

from components.artifacts.evaluation import EVALUATION_JSON, read_evaluation
from components.artifacts.verdict import VERDICT_JSON, read_verdict
from pipelines.runs import RunRecord
from pipelines.settings.names import Stage, Task

REPORTS: Final[tuple[tuple[Task, str, str], ...]] = (
    ("verify_data", "report", "data.html"),
    ("train", "curves", "curves.html"),
    ("evaluate", "report", "evaluation.html"),
    ("report_catalogue", "page", "catalogue.html"),
)
"""Stage, its artifact, and the name under which the run's folder keeps it."""

Ended = Literal["succeeded", "failed", "cancelled"]


def conclude(record: RunRecord, ended: Ended, said: str = "", look_at: str = "run.log") -> None:
    """Complete a record from the artifacts at hand and from what the target says of the run as a whole.

    Args:
        record: with every stage's last status; changed in place, not saved.
        ended: how the target says that the run ended.
        said: what it says of a failure or a stop, one line; may be empty.
        look_at: where a reader finds more.
    """
    passed = _read_results(record)
    broken = [stage.name for stage in record.stages if stage.status in ("failed", "running")]
    if ended == "cancelled":
        record.status, record.error = "interrupted", said or "cancelled"
    elif ended == "failed" or broken:
        where = f"{broken[0]}: " if broken else ""
        record.status, record.error = "failed", f"{where}{said or f'failed; see {look_at}'}"
    elif record.pipeline == "catalogue":
        record.status = "scored"
    elif not record.ran("quality_gate"):
        record.status, record.error = "failed", f"the run ended without a verdict; see {look_at}"
    elif record.ran("register"):
        record.status = "deployed" if record.ran("deploy") else "registered"
    elif passed:
        # a runner can take a condition's false branch in silence; a passed gate must lead somewhere
        record.status, record.error = "failed", f"the gate passed but register did not run; see {look_at}"
    else:
        record.status = "refused"
    record.stop_stages()


def _read_results(record: RunRecord) -> bool:
    """Take figures and headline from the artifacts at hand; tells whether the verdict among them is `passed`."""
    evaluation, verdict = _artifact(record, "evaluate", "evaluation"), _artifact(record, "quality_gate", "verdict")
    if evaluation is not None and (evaluation / EVALUATION_JSON).is_file():
        record.metrics = {name: metric.value for name, metric in read_evaluation(evaluation).test.metrics.items()}
    if verdict is None or not (verdict / VERDICT_JSON).is_file():
        return False
    found = read_verdict(verdict)
    record.headline = found.headline
    return found.passed


def _artifact(record: RunRecord, stage: Stage, name: str) -> Path | None:
    return record.output(stage, name) if record.ran(stage) and record.stage(stage).output_dir else None
