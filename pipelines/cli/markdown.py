"""What a verb did as Markdown, appended to a file: the job summary of a CI run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.verdict import VERDICT_JSON, GateVerdict, read_verdict

if TYPE_CHECKING:
    from components.artifacts.deployment import Deployment
    from components.deploy.preview import Preview
    from pipelines.retrain import Outcome
    from pipelines.runs import RunRecord

_MARKS = {"passed": "✅", "refused": "❌", "reported": "ℹ️"}


class Summary:
    """The file that `--summary` names; without one nothing is written."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def add(self, text: str) -> None:
        """Append one section."""
        if self._file is None:
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n\n")


@contextmanager
def summary(file: Path | None, verb: str) -> Iterator[Summary]:
    """The summary of one verb, which also tells of the error that ended it.

    Raises:
        OSError: the file cannot be written; known before the verb does anything.
    """
    if file is not None:
        file.open("a").close()
    opened = Summary(file)
    try:
        yield opened
    except Exception as error:
        opened.add(f"## {verb} failed\n\n{_line(str(error) or type(error).__name__)}")
        raise


def run_markdown(record: "RunRecord") -> str:
    """A run: status, verdict, stages."""
    lines = [f"## Run {record.run_id}: {record.status}", ""]
    if record.error:
        lines += [_line(record.error), ""]
    verdict = _verdict(record)
    if verdict is not None:
        lines += [verdict_markdown(verdict), ""]
    elif record.headline:
        lines += [f"**{_line(record.headline)}**", ""]
    lines += ["| stage | status | seconds |", "|---|---|---:|"]
    for stage in record.stages:
        lines.append(f"| {stage.name} | {stage.shown} | {f'{stage.seconds:.1f}' if stage.seconds else ''} |")
    lines += ["", f"Started for {_line(record.reason)}, on {record.target}, from `{record.git_sha[:12]}`."]
    if record.link:
        lines += ["", f"[The run's page]({record.link})"]
    return "\n".join(lines)


def verdict_markdown(verdict: GateVerdict) -> str:
    """The gate's headline and its sentences."""
    lines = [f"**{_line(verdict.headline)}**", ""]
    lines += [f"- {_MARKS[check.outcome]} {_line(check.sentence)}" for check in verdict.checks]
    lines += [f"- note: {_line(note)}" for note in verdict.notes]
    return "\n".join(lines)


def deployment_markdown(deployment: "Deployment") -> str:
    """Which version serves now, and instead of what."""
    before = deployment.previous
    instead = "the first to serve" if before is None else f"instead of version {before}"
    if before == deployment.version:
        instead = "as before, in a new revision"
    lines = [f"## Version {deployment.version} of {deployment.name} serves", ""]
    lines += [f"On {deployment.target}, {instead}. Smoke test: {_line(deployment.smoke)}."]
    if deployment.url:
        lines += ["", f"It answers at {deployment.url}"]
    return "\n".join(lines)


def preview_markdown(preview: "Preview") -> str:
    """Where a preview is reached."""
    return (
        f"## Preview {preview.tag}\n\n{preview.url} serves version {preview.version} of {preview.name} from "
        f"`{preview.image}`, without users. Smoke test: {_line(preview.smoke)}."
    )


def retrain_markdown(outcome: "Outcome") -> str:
    """The decision and its reasons."""
    word = "retrain" if outcome.decision.retrain else "do not retrain"
    lines = [f"## Decision: {word}", "", _line(outcome.decision.explanation), ""]
    lines += [f"- {_line(line)}" for line in outcome.decision.considered]
    if outcome.run_id:
        lines += ["", f"Run {outcome.run_id}: {outcome.status}"]
    return "\n".join(lines)


def _verdict(record: "RunRecord") -> GateVerdict | None:
    stage = record.stage("quality_gate")
    # a run in the cloud keeps its artifacts there: only the headline may be known here
    if stage.status != "succeeded" or not stage.output_dir:
        return None
    folder = record.output("quality_gate", "verdict")
    return read_verdict(folder) if (folder / VERDICT_JSON).is_file() else None


def _line(text: str) -> str:
    """One line of prose: what others wrote (a reason, an error) starts no element of Markdown or HTML."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")
