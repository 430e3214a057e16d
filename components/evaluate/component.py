"""KFP face of the stage evaluate."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="ai-product-photo-detector/train:dev", install_kfp_package=False)
def evaluate(
    bundle: Input[Model],
    dataset: Input[Dataset],
    config: dict,
    context: dict,
    job: str,
    evaluation: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
):
    """Score the bundle on the frozen test split, corrupted copies of it, unseen generators, and beside the champion."""
    from pathlib import Path

    from components.artifacts.context import RunContext
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.stage import evaluate as run
    from components.evaluate.stage import flat_metrics
    from components.evaluate.viewer import confusion_matrix, roc_curve

    found = run(
        Path(bundle.path),
        Path(dataset.path),
        EvaluateConfig.model_validate(config),
        RunContext.of(context, job),
        Path(evaluation.path),
        Path(report.path),
    )
    for name, value in flat_metrics(found).items():
        metrics.log_metric(name, value)
    classification.log_confusion_matrix(*confusion_matrix(found.test))
    classification.log_roc_curve(*roc_curve(found.test))
    evaluation.metadata["bundle_digest"] = found.bundle_digest
