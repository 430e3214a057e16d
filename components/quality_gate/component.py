"""KFP face of the stage quality_gate."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Output


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def quality_gate(
    evaluation: Input[Artifact],
    config: dict,
    context: dict,
    job: str,
    verdict: Output[Artifact],
    summary: Output[Markdown],
) -> bool:
    """Decide whether the model may be registered; the one value returned is what the pipeline branches on."""
    from pathlib import Path

    from components.artifacts.context import RunContext
    from components.quality_gate.config import GateConfig
    from components.quality_gate.stage import quality_gate as run

    found = run(
        Path(evaluation.path),
        GateConfig.model_validate(config),
        RunContext.of(context, job),
        Path(verdict.path),
        Path(summary.path),
    )
    verdict.metadata["headline"] = found.headline
    verdict.metadata["passed"] = found.passed
    return found.passed
