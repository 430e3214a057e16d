"""The HTML report of an evaluation: one file that needs nothing beside it."""

import base64
from pathlib import Path

from components.artifacts.evaluation import Evaluation, Metric
from components.evaluate.gallery import Gallery
from components.evaluate.wording import openers, opening, said

PLOTS = "plots"

FIGURES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall (TPR)",
    "fpr": "False positive rate",
    "fnr": "False negative rate",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "tpr_at_1pct_fpr": "TPR at 1 % FPR",
    "ece": "Expected calibration error",
    "brier": "Brier score",
}
"""Metric -> how the report calls it, in the order it is shown."""

HEADLINES = ("accuracy", "f1", "roc_auc", "fpr", "fnr", "ece")
PLAIN_NUMBERS = ("roc_auc", "pr_auc", "brier", "ece")
"""Figures that are no shares of images and so are not written in per cent."""


def write_report(report: Path, folder: Path, evaluation: Evaluation, plots: dict[str, str], gallery: Gallery) -> None:
    """Write the report, and its plots as SVG files beside the evaluation.

    Args:
        report: HTML file to write.
        folder: evaluation folder; the plots go to its `plots/`.
        evaluation: all figures.
        plots: SVG text by name.
        gallery: the worst mistakes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (folder / PLOTS / f"{name}.svg").write_text(svg)
    environment = Environment(
        loader=PackageLoader("components.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, interval=interval, points=points)
    template = environment.get_template("report.html.j2")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(
        template.render(
            evaluation=evaluation,
            figures=FIGURES,
            headlines=HEADLINES,
            plots={name: "data:image/svg+xml;base64," + _base64(svg) for name, svg in plots.items()},
            gallery=gallery,
            opening=opening(evaluation),
            openers=openers(plots),
            shown={name for name, _ in openers(plots)},
            said=lambda probability: said(probability, evaluation.threshold),
        )
    )


def figure(metric: Metric, name: str = "") -> str:
    """`94.1 %`, or `0.991` for what is no share."""
    return f"{metric.value:.3f}" if name in PLAIN_NUMBERS else f"{metric.value * 100:.1f} %"


def interval(metric: Metric, name: str = "") -> str:
    """`92.6-95.3`, in the unit of `figure`; a dash where none is defined."""
    if metric.low is None or metric.high is None:
        return "–"
    if name in PLAIN_NUMBERS:
        return f"{metric.low:.3f}–{metric.high:.3f}"
    return f"{metric.low * 100:.1f}–{metric.high * 100:.1f}"


def points(metric: Metric) -> str:
    """`+1.2 (-0.3 to +2.7)`: a difference in percentage points."""
    text = f"{metric.value * 100:+.1f}"
    if metric.low is None or metric.high is None:
        return text
    return f"{text} ({metric.low * 100:+.1f} to {metric.high * 100:+.1f})"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
