"""KFP face of stage train."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="ai-product-photo-detector/train:dev", install_kfp_package=False)
def train(
    dataset: Input[Dataset],
    config: dict,
    context: dict,
    job: str,
    bundle: Output[Model],
    curves: Output[HTML],
    metrics: Output[Metrics],
):
    """Train, calibrate and export a detector; the bundle is a folder sealed by its manifest.

    Args:
        dataset: Packed dataset of verify_data.
        config: Section `train` of the pipeline configuration.
        context: Run context shared by all stages.
        job: The target's own name of the run; empty where an earlier run may answer: then the bundle's address says it.
        bundle: The model bundle.
        curves: Training curves.
        metrics: Figures on the validation split.
    """
    from pathlib import Path

    from components.artifacts.context import RunContext
    from components.train.cluster import train as run
    from components.train.config import PlacedTrainConfig

    summary = run(
        Path(dataset.path),
        Path(bundle.path),
        PlacedTrainConfig.model_validate(config),
        RunContext.of(context, job, bundle.uri),
        Path(curves.path),
    )
    if summary is not None:
        bundle.metadata.update(digest=summary.digest, architecture=summary.architecture, input_px=summary.input_px)
        for name, value in summary.figures().items():
            metrics.log_metric(name, value)
