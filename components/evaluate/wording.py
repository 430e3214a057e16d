"""The evaluation in words: the paragraph that opens the report, and what is said under its pictures."""

from typing import Final

from components.artifacts.evaluation import CorruptionCell, Evaluation, Metric

OPENERS: Final = {
    "confusion": "What was called what: each row is what the photos are, each column what the model said.",
    "scores": "How sure it was: the further the two classes lie apart, the fewer photos are judged by luck.",
    "robustness": "What photos go through on their way: accuracy after each treatment.",
    "reliability": "Whether its probabilities can be taken at their word: the nearer to the diagonal, the more.",
}
"""Picture -> caption, the most telling first; three of them open the report."""


def openers(plots: dict[str, str]) -> list[tuple[str, str]]:
    """The three pictures that open the report, with their captions; `plots`: SVG text by name."""
    return [(name, caption) for name, caption in OPENERS.items() if name in plots][:3]


def opening(evaluation: Evaluation) -> str:
    """The evaluation in one paragraph, for who reads nothing else."""
    test = evaluation.test
    counts = test.confusion
    right = counts.true_real + counts.true_ai
    sentences = [
        f"Of {test.n:,} test images that training never saw, {right:,} were judged right "
        f"({_share(test.metrics['accuracy'])})."
    ]
    real, generated = counts.true_real + counts.false_ai, counts.true_ai + counts.false_real
    if real and generated:
        sentences.append(
            f"{counts.false_ai:,} of {real:,} real photos were called generated, and {counts.false_real:,} of "
            f"{generated:,} generated ones were missed."
        )
    high = test.confidence.get("high")
    if high is not None and high.n and high.accuracy is not None:
        sentences.append(
            f"It was sure of {high.n / test.n * 100:.0f} % of them, and then right in {_share(high.accuracy)}."
        )
    if test.decisions is not None and test.decisions.to_review is not None:
        sentences.append(f"A person would have to look at {_share(test.decisions.to_review)}.")
    worst = _worst(evaluation.robustness)
    if worst is not None:
        sentences.append(
            f"Of what was done to the photos, {worst.corruption} {worst.level} hurt most: accuracy "
            f"{_share(worst.accuracy)}."
        )
    unseen = evaluation.unseen_generator
    if unseen is not None and "recall" in unseen.metrics:
        sentences.append(f"Of images by generators it never met it found {_share(unseen.metrics['recall'])}.")
    if evaluation.champion is not None and not evaluation.champion.identical:
        difference = evaluation.champion.accuracy_difference
        sentences.append(
            f"Against champion {evaluation.champion.champion_version} its accuracy changes by "
            f"{difference.value * 100:+.1f} points."
        )
    return " ".join(sentences)


def said(probability: float, threshold: float) -> str:
    """What is wrong with a verdict: `Real, and called generated: score 0.970.`"""
    if probability >= threshold:
        return f"Real, and called generated: score {probability:.3f}."
    return f"Generated, and called real: score {probability:.3f}."


def _worst(cells: list[CorruptionCell]) -> CorruptionCell | None:
    return min(cells, key=lambda cell: cell.accuracy.value, default=None)


def _share(metric: Metric) -> str:
    share = f"{metric.value * 100:.1f} %"
    if metric.low is None or metric.high is None:
        return share
    return f"{share}, 95 % interval {metric.low * 100:.1f} to {metric.high * 100:.1f}"
