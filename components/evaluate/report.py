"""The HTML report of an evaluation."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from components.artifacts.dataset import Dataset
from components.artifacts.evaluation import Evaluation
from components.evaluate.config import EvaluateConfig
from components.evaluate.predictions import ModelVerdicts
from serving.detector.detector import Detector


def write_report(
    report: Path,
    folder: Path,
    evaluation: Evaluation,
    detector: Detector,
    data: Dataset,
    verdicts: Sequence[ModelVerdicts],
    config: EvaluateConfig,
) -> None:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{m.value:.4f}</td></tr>" for name, m in evaluation.test.metrics.items()
    )
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(f"<!doctype html><title>Evaluation</title><p>{evaluation.caveat}</p><table>{rows}</table>")
