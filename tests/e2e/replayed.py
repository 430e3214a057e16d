"""The first three stages of a run that is there already: same interface to KFP, outputs copied instead of computed.

What comes behind them (the gate, its branch, register, deploy) runs as ever, in a few seconds instead of a training.
The bodies are all that KFP takes along, so each holds all that it needs.
"""

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

VARIABLE = "REPLAYED_ARTIFACTS"
"""Holds the folder where the earlier run's stages left their outputs."""


@dsl.component(base_image="ai-product-photo-detector/pipeline:dev", install_kfp_package=False)
def verify_data(
    data_uri: str,
    data_labels: dict,
    config: dict,
    data_state: str,
    dataset: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    import os
    import shutil
    from pathlib import Path

    earlier = Path(os.environ["REPLAYED_ARTIFACTS"]) / "verify-data"
    shutil.copytree(earlier / "dataset", dataset.path)
    shutil.copyfile(earlier / "report", report.path)


@dsl.component(base_image="ai-product-photo-detector/train:dev", install_kfp_package=False)
def train(
    dataset: Input[Dataset],
    config: dict,
    context: dict,
    job: str,
    bundle: Output[Model],
    curves: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    import os
    import shutil
    from pathlib import Path

    earlier = Path(os.environ["REPLAYED_ARTIFACTS"]) / "train"
    shutil.copytree(earlier / "bundle", bundle.path)
    shutil.copyfile(earlier / "curves", curves.path)


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
) -> None:
    import os
    import shutil
    from pathlib import Path

    earlier = Path(os.environ["REPLAYED_ARTIFACTS"]) / "evaluate"
    shutil.copytree(earlier / "evaluation", evaluation.path)
    shutil.copyfile(earlier / "report", report.path)


def replay(monkeypatch: pytest.MonkeyPatch, record: dict[str, Any]) -> None:
    """Let the pipelines that this process compiles begin with the stages of the run of `record`."""
    from pipelines import training

    (artifacts,) = (path for path in (Path(record["folder"]) / "artifacts").iterdir() if path.is_dir())
    monkeypatch.setenv(VARIABLE, str(artifacts))
    for component in (verify_data, train, evaluate):
        ours = getattr(training, component.python_func.__name__)
        assert component.component_spec.inputs == ours.component_spec.inputs, "the interface of the stage has changed"
        monkeypatch.setattr(training, component.python_func.__name__, component)
