"""Figures in the shape that the pipeline viewers' ClassificationMetrics take."""

from components.artifacts.evaluation import ScoreSet
from serving.detector.labels import LABELS


def confusion_matrix(scores: ScoreSet) -> tuple[list[str], list[list[int]]]:
    """Class names, and counts with a row for each true class and a column for each verdict."""
    c = scores.confusion
    return list(LABELS), [[c.true_real, c.false_ai], [c.false_real, c.true_ai]]


def roc_curve(scores: ScoreSet) -> tuple[list[float], list[float], list[float]]:
    """False positive rates, true positive rates and finite thresholds."""
    fpr, tpr, threshold = zip(*scores.roc, strict=True)
    return list(fpr), list(tpr), list(threshold)
