"""Judge an evaluation and write the verdict down."""

from pathlib import Path

from components.artifacts.context import RunContext
from components.artifacts.verdict import VERDICT_JSON, VERDICT_MD, GateVerdict
from components.evaluate.recount import check_figures
from components.platform.tracking import record
from components.quality_gate.config import GateConfig
from components.quality_gate.policy import judge
from components.quality_gate.wording import markdown


def quality_gate(
    evaluation: Path, config: GateConfig, context: RunContext, verdict: Path, summary: Path
) -> GateVerdict:
    """Run the stage.

    Args:
        evaluation: folder written by evaluate.
        config: the policy.
        context: the run it belongs to.
        verdict: folder to write `verdict.json` and `verdict.md` to.
        summary: Markdown file to write: the same text as `verdict.md`.

    Raises:
        StageError: the folder holds no evaluation whose figures follow from its verdicts, or the tracking server took
            no figures.
    """
    found = judge_folder(evaluation, config)
    text = markdown(found)
    verdict.mkdir(parents=True, exist_ok=True)
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(text)
    (verdict / VERDICT_MD).write_text(text)
    (verdict / VERDICT_JSON).write_text(found.model_dump_json(indent=1) + "\n")
    record(
        context,
        metrics={"gate/passed": float(found.passed)},
        tags={"gate": "passed" if found.passed else "refused", "gate.headline": found.headline},
        files=[verdict / VERDICT_JSON, verdict / VERDICT_MD],
        folder="verdict",
    )
    return found


def judge_folder(evaluation: Path, config: GateConfig) -> GateVerdict:
    """Judge an evaluation folder, again or for the first time; writes nothing.

    Raises:
        StageError: the folder holds no evaluation whose figures follow from its verdicts.
    """
    return judge(check_figures(evaluation), config)
