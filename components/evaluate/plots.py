"""Plots of an evaluation as standalone SVG documents."""

from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from components.artifacts.evaluation import Evaluation
from components.evaluate.metrics import Judged, Ranking, precision_recall_points
from serving.detector.labels import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CANDIDATE_INK: Final = "#1d4ed8"
CHAMPION_INK: Final = "#9ca3af"
UNSEEN_INK: Final = "#a855f7"
REAL_INK: Final = "#0d9488"
AI_INK: Final = "#ea580c"
GUIDE_INK: Final = "#d1d5db"
HISTOGRAM_BINS: Final = 40

_STYLE: Final[dict[str, Any]] = {
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.labelcolor": "#374151",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": "#eef0f3",
    "legend.frameon": False,
    "svg.hashsalt": "evaluation",
    "xtick.color": "#6b7280",
    "ytick.color": "#6b7280",
}


def draw_all(evaluation: Evaluation, test: Judged, calibration_bins: int) -> dict[str, str]:
    """Every plot by name, as SVG text that is equal for equal figures.

    Args:
        evaluation: all figures.
        test: the candidate's verdicts on the test split.
        calibration_bins: bins of the reliability diagram.
    """
    ranking = Ranking(test, calibration_bins)
    plots = {
        "roc": _svg(lambda ax: _roc(ax, evaluation)),
        "precision_recall": _svg(lambda ax: _precision_recall(ax, evaluation, ranking)),
        "reliability": _svg(lambda ax: _reliability(ax, evaluation)),
        "scores": _svg(lambda ax: _scores(ax, test)),
        "confusion": _svg(lambda ax: _confusion(ax, evaluation)),
    }
    if evaluation.robustness:
        height = 1.2 + 0.3 * len(evaluation.robustness)
        plots["robustness"] = _svg(lambda ax: _robustness(ax, evaluation), (8.4, height))
    return plots


def _svg(draw: Callable[["Axes"], None], size: tuple[float, float] = (4.2, 3.6)) -> str:
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        draw(axes)
        text = StringIO()
        # without a date the same figures give the same bytes
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _roc(ax: "Axes", evaluation: Evaluation) -> None:
    ax.plot([0, 1], [0, 1], color=GUIDE_INK, linestyle="--", linewidth=1)
    curves = [("candidate", CANDIDATE_INK, evaluation.test)]
    if evaluation.champion is not None:
        curves.insert(
            0, (f"champion {evaluation.champion.champion_version}", CHAMPION_INK, evaluation.champion.champion)
        )
    if evaluation.unseen_generator is not None and evaluation.unseen_generator.roc:
        curves.append(("unseen generator", UNSEEN_INK, evaluation.unseen_generator))
    for name, ink, scores in curves:
        fpr, tpr, _ = zip(*scores.roc, strict=True)
        ax.plot(fpr, tpr, color=ink, label=f"{name}: {scores.metrics['roc_auc'].value:.3f}")
    shipped = evaluation.test.metrics
    ax.plot(shipped["fpr"].value, shipped["recall"].value, "o", color=CANDIDATE_INK, label="shipped threshold")
    ax.set(
        title="ROC", xlabel="False positive rate", ylabel="True positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01)
    )
    ax.legend(loc="lower right")


def _precision_recall(ax: "Axes", evaluation: Evaluation, ranking: Ranking) -> None:
    recall, precision = precision_recall_points(ranking)
    area = evaluation.test.metrics["pr_auc"].value
    ax.plot(recall, precision, color=CANDIDATE_INK, label=f"candidate: {area:.3f}")
    share = float(np.mean(ranking.y))
    ax.axhline(share, color=GUIDE_INK, linestyle="--", linewidth=1, label=f"chance: {share:.2f}")
    ax.set(title="Precision and recall", xlabel="Recall", ylabel="Precision", xlim=(-0.01, 1.01), ylim=(0, 1.01))
    ax.legend(loc="lower left")


def _reliability(ax: "Axes", evaluation: Evaluation) -> None:
    bins = evaluation.test.calibration
    said, found = [b.mean_probability for b in bins], [b.observed for b in bins]
    ax.plot([0, 1], [0, 1], color=GUIDE_INK, linestyle="--", linewidth=1)
    for x, y in zip(said, found, strict=True):
        ax.plot([x, x], [x, y], color=AI_INK, linewidth=2, alpha=0.6)
    ax.plot(said, found, "o-", color=CANDIDATE_INK, markersize=4, linewidth=1)
    error = evaluation.test.metrics["ece"].value
    ax.set(
        title=f"Reliability (ECE {error:.3f})",
        xlabel="Stated probability of ai_generated",
        ylabel="Share that was",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )


def _scores(ax: "Axes", test: Judged) -> None:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1).tolist()
    for name, ink, rows in ((LABELS[0], REAL_INK, ~test.positive), (LABELS[1], AI_INK, test.positive)):
        ax.hist(test.probabilities[rows], edges, color=ink, alpha=0.6, label=name)
    ax.axvline(test.threshold, color="#374151", linestyle="--", linewidth=1, label=f"threshold {test.threshold:.2f}")
    ax.set(title="Scores by true class", xlabel="Probability of ai_generated", ylabel="Images", xlim=(0, 1))
    ax.legend(loc="upper center")


def _confusion(ax: "Axes", evaluation: Evaluation) -> None:
    c = evaluation.test.confusion
    counts = np.array([[c.true_real, c.false_ai], [c.false_real, c.true_ai]])
    shares = counts / counts.sum(axis=1, keepdims=True)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.5 else "#111827"
        ax.text(column, row, f"{n:,}\n{shares[row, column]:.1%}", ha="center", va="center", color=ink, fontsize=12)
    ax.set_xticks([0, 1], LABELS)
    ax.set_yticks([0, 1], LABELS, rotation=90, va="center")
    ax.grid(visible=False)
    ax.set(title="Confusion", xlabel="Verdict", ylabel="True class")


def _robustness(ax: "Axes", evaluation: Evaluation) -> None:
    cells = evaluation.robustness
    places = np.arange(len(cells))
    values = np.array([cell.accuracy.value for cell in cells])
    low = np.array([cell.accuracy.low for cell in cells], dtype=float)
    high = np.array([cell.accuracy.high for cell in cells], dtype=float)
    ax.barh(places, values, color=CANDIDATE_INK, alpha=0.75, height=0.62, label="candidate, 95 % CI")
    ax.errorbar(values, places, xerr=[values - low, high - values], fmt="none", ecolor="#111827", elinewidth=1)
    champions = [(i, cell.champion_accuracy.value) for i, cell in enumerate(cells) if cell.champion_accuracy]
    if champions:
        at, champion = zip(*champions, strict=True)
        ax.plot(champion, at, "D", color="#111827", markersize=4, label="champion")
    clean = evaluation.test.metrics["accuracy"].value
    ax.axvline(clean, color=AI_INK, linestyle="--", linewidth=1, label=f"clean test split {clean:.1%}")
    ax.set_yticks(places, [f"{cell.corruption} {cell.level}" for cell in cells])
    ax.invert_yaxis()
    ax.set(title="Accuracy after corruption", xlabel="Accuracy", xlim=(max(0.0, float(low.min()) - 0.05), 1.0))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
