"""KFP face of verify_data."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Metrics, Output


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def verify_data(
    data_uri: str,
    data_labels: dict,
    config: dict,
    data_state: str,
    dataset: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
):
    """Reads and checks every image, lists offenders by name, and packs what passed into one fingerprinted dataset.

    Args:
        data_uri: Where the images are.
        data_labels: Class names of one's own.
        config: Section `verify_data` of the pipeline configuration.
        data_state: What lay at `data_uri` as the run was started, where an earlier run may answer; else empty.
        dataset: The packed dataset.
        report: What was found, for people.
        metrics: Figures of the data.
    """
    from pathlib import Path

    from components.verify_data.classes import ClassNames
    from components.verify_data.config import VerifyDataConfig
    from components.verify_data.layout import Reading
    from components.verify_data.stage import verify_and_pack

    reading = Reading(ClassNames(data_labels))
    findings, summary = verify_and_pack(
        data_uri, VerifyDataConfig.model_validate(config), Path(dataset.path), Path(report.path), reading
    )
    dataset.metadata.update(fingerprint=summary.fingerprint, source_uri=summary.source_uri, source_state=data_state)
    for name, value in findings.figures(summary).items():
        metrics.log_metric(name, value)
