"""KFP face of verify_data."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Metrics, Output


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def verify_data(
    data_uri: str,
    data_labels: dict,
    config: dict,
    context: dict,
    job: str,
    dataset: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Reads and checks every image, lists offenders by name, and packs what passed into one fingerprinted dataset."""
    from pathlib import Path

    from components.artifacts.context import RunContext
    from components.verify_data.classes import ClassNames
    from components.verify_data.config import VerifyDataConfig
    from components.verify_data.layout import Reading
    from components.verify_data.stage import verify_and_pack

    RunContext.of(context, job)
    reading = Reading(ClassNames(data_labels))
    findings, summary = verify_and_pack(
        data_uri, VerifyDataConfig.model_validate(config), Path(dataset.path), Path(report.path), reading
    )
    dataset.metadata.update(fingerprint=summary.fingerprint, source_uri=summary.source_uri)
    for name, value in findings.figures(summary).items():
        metrics.log_metric(name, value)
