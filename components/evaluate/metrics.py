"""Figures of one model on one set of images, each with its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.evaluation import CalibrationBin, ConfidenceBand, Confusion, Metric, ScoreSet, Slice
from components.evaluate.config import EvaluateConfig
from components.evaluate.intervals import Counts, Floats, Mask, interval, proportion, stratified_counts
from components.evaluate.slices import Group
from serving.detector.decision import CONFIDENCES, DecisionRule

LOW_FPR: Final = 0.01
ROC_POINTS: Final = 200
NOISE_SIMULATIONS: Final = 1000


@dataclass(frozen=True)
class Judged:
    """Verdicts of one model on n images, read by its own decision rule."""

    positive: Mask
    """True class is `ai_generated`, (n,)."""
    logits: Floats
    probabilities: Floats
    predicted: Mask
    """Verdict is `ai_generated`, (n,)."""
    confidence: tuple[str, ...]
    threshold: float
    units: Counts
    """Which images belong together, (n,): copies of one picture, or pictures from one photograph."""

    @classmethod
    def of(
        cls, positive: Mask, logits: npt.NDArray[np.floating], rule: DecisionRule, units: Counts | None = None
    ) -> "Judged":
        """Read raw logits (n,) by a decision rule; without `units` every image stands for itself."""
        probabilities = rule.probabilities(logits)
        verdicts = [rule.verdict(p) for p in probabilities.tolist()]
        return cls(
            positive=positive,
            logits=logits.astype(np.float64),
            probabilities=probabilities,
            predicted=np.array([v.prediction == "ai_generated" for v in verdicts], dtype=bool),
            confidence=tuple(v.confidence for v in verdicts),
            threshold=rule.threshold,
            units=np.arange(len(positive)) if units is None else units,
        )

    @property
    def right(self) -> Mask:
        """Verdict equals the true class, (n,)."""
        return np.equal(self.predicted, self.positive)

    def take(self, rows: npt.NDArray[np.int64]) -> "Judged":
        """The same verdicts on some of the images."""
        return Judged(
            positive=self.positive[rows],
            logits=self.logits[rows],
            probabilities=self.probabilities[rows],
            predicted=self.predicted[rows],
            confidence=tuple(self.confidence[i] for i in rows.tolist()),
            threshold=self.threshold,
            units=self.units[rows],
        )

    def followed_by(self, other: "Judged") -> "Judged":
        """These verdicts and then those of the same model on other images; equal units are one across both."""
        return Judged(
            positive=np.concatenate([self.positive, other.positive]),
            logits=np.concatenate([self.logits, other.logits]),
            probabilities=np.concatenate([self.probabilities, other.probabilities]),
            predicted=np.concatenate([self.predicted, other.predicted]),
            confidence=self.confidence + other.confidence,
            threshold=self.threshold,
            units=np.concatenate([self.units, other.units]),
        )


class Ranking:
    """Images in falling order of probability, on which every score-based figure is one pass over weights.

    The same code gives the figure itself (each image once) and its bootstrap draws (each image as often as drawn).
    """

    def __init__(self, judged: Judged, ece_bins: int) -> None:
        self.order = np.argsort(-judged.probabilities, kind="stable")
        self.p = judged.probabilities[self.order]
        self.y = judged.positive[self.order]
        self.units = judged.units[self.order]
        n = len(self.p)
        # images of equal probability cannot be told apart by a threshold: figures are read at the ends of ties
        self.ends = np.append(np.flatnonzero(np.diff(self.p)), n - 1)
        self.predicted = int(np.count_nonzero(judged.predicted))
        edges = np.unique(np.linspace(0, n, ece_bins + 1).astype(np.int64)[1:-1])
        tie_starts = np.append(0, self.ends[:-1] + 1)
        self.bin_starts = np.unique(np.append(0, tie_starts[np.searchsorted(tie_starts, edges, side="right") - 1]))

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Score-based figures of weighted images.

        Args:
            weights: (draws, n) how often each image counts, in ranking order.

        Returns:
            figure -> (draws,). Those that need both classes are left out where one is missing.
        """
        w_positive = weights * self.y
        w_negative = weights - w_positive
        found = {"brier": (weights @ np.square(self.p - self.y)) / weights.sum(axis=1)}
        positives, negatives = w_positive.sum(axis=1), w_negative.sum(axis=1)
        if not self.y.any() or self.y.all():
            return found
        true = np.cumsum(w_positive, axis=1)
        false = np.cumsum(w_negative, axis=1)
        at_threshold = slice(self.predicted - 1, self.predicted)
        hits = true[:, at_threshold].sum(axis=1) if self.predicted else np.zeros(len(weights))
        alarms = false[:, at_threshold].sum(axis=1) if self.predicted else np.zeros(len(weights))
        found["f1"] = 2 * hits / (positives + hits + alarms)
        true, false = true[:, self.ends], false[:, self.ends]
        d_true, d_false = np.diff(true, axis=1, prepend=0.0), np.diff(false, axis=1, prepend=0.0)
        found["roc_auc"] = (d_false * (true - d_true / 2)).sum(axis=1) / (positives * negatives)
        found["pr_auc"] = (d_true * true / np.maximum(true + false, 1e-12)).sum(axis=1) / positives
        low_fpr = false <= LOW_FPR * negatives[:, None]
        found["tpr_at_1pct_fpr"] = np.where(low_fpr, true, 0.0).max(axis=1) / positives
        found["ece"] = self._calibration_error(weights, w_positive)
        return found

    def bins(self, weights: Floats, w_positive: Floats) -> tuple[Floats, Floats, Floats]:
        """Weight, summed probability and summed positives of each reliability bin, (draws, bins) each."""
        return (
            np.add.reduceat(weights, self.bin_starts, axis=1),
            np.add.reduceat(weights * self.p, self.bin_starts, axis=1),
            np.add.reduceat(w_positive, self.bin_starts, axis=1),
        )

    def _calibration_error(self, weights: Floats, w_positive: Floats) -> Floats:
        _, expected, observed = self.bins(weights, w_positive)
        error: Floats = np.abs(expected - observed).sum(axis=1) / weights.sum(axis=1)
        return error


def score_set(judged: Judged, groups: Sequence[Group], config: EvaluateConfig, distinct: int | None = None) -> ScoreSet:
    """All figures of one model on one set of images; those that need both classes only where both are there.

    Args:
        judged: the verdicts.
        groups: parts to look at on their own.
        config: bins, draws and seed.
        distinct: images with pixels of their own; None: all of them.
    """
    confusion = count(judged)
    ranking = Ranking(judged, config.calibration_bins)
    return ScoreSet(
        n=len(judged.positive),
        distinct=len(judged.positive) if distinct is None else distinct,
        units=len(np.unique(judged.units)),
        metrics=counted(judged) | ranked(ranking, config),
        confusion=confusion,
        calibration=reliability(ranking),
        confidence=bands(judged),
        slices=[slice_figures(judged, group) for group in groups],
        roc=roc_points(ranking),
        ece_noise_floor=noise_floor(ranking, config) if judged.positive.any() and not judged.positive.all() else None,
    )


def score_unseen(
    unseen: Judged, test: Judged, groups: Sequence[Group], config: EvaluateConfig, distinct: int | None = None
) -> ScoreSet:
    """Figures on images of generators that training never saw.

    Such a split often has generated images only. Then what needs both classes is measured against the real images of
    the test split: `roc_auc`, `tpr_at_1pct_fpr` and the ROC points; all else is of the unseen images alone.
    """
    alone = score_set(unseen, groups, config, distinct)
    if alone.roc or not unseen.positive.any():
        return alone
    ranking = Ranking(test.take(np.flatnonzero(~test.positive)).followed_by(unseen), config.calibration_bins)
    against_real = ranked(ranking, config)
    borrowed = {name: against_real[name] for name in ("roc_auc", "tpr_at_1pct_fpr")}
    return alone.model_copy(update={"metrics": alone.metrics | borrowed, "roc": roc_points(ranking)})


def count(judged: Judged) -> Confusion:
    """Confusion counts at the shipped threshold."""
    y, p = judged.positive, judged.predicted
    return Confusion(
        true_real=int(np.sum(~y & ~p)),
        false_ai=int(np.sum(~y & p)),
        false_real=int(np.sum(y & ~p)),
        true_ai=int(np.sum(y & p)),
    )


def counted(judged: Judged) -> dict[str, Metric]:
    """Figures that are proportions of counts, with Wilson intervals; undefined ones are left out.

    Precision of a model that never says `ai_generated` is 0, as scikit-learn has it, without an interval.
    """
    ai, said_ai = judged.positive, judged.predicted

    def share(hits: Mask, of: Mask) -> Metric | None:
        return proportion(hits[of], judged.units[of])

    both = bool(ai.any() and not ai.all())
    found = {
        "accuracy": proportion(judged.right, judged.units),
        "precision": (share(ai, said_ai) or Metric(value=0.0)) if both else None,
        "recall": share(said_ai, ai),
        "fpr": share(said_ai, ~ai),
        "fnr": share(~said_ai, ai),
    }
    return {name: metric for name, metric in found.items() if metric is not None}


def ranked(ranking: Ranking, config: EvaluateConfig) -> dict[str, Metric]:
    """Score-based figures with stratified bootstrap intervals."""
    point = {name: float(value[0]) for name, value in ranking.figures(np.ones((1, len(ranking.p)))).items()}
    rng = np.random.default_rng(config.seed)
    draws: dict[str, list[Floats]] = {name: [] for name in point}
    for weights in stratified_counts(ranking.y, ranking.units, config.bootstrap_draws, rng):
        for name, values in ranking.figures(weights).items():
            draws[name].append(values)
    return {name: interval(value, np.concatenate(draws[name]), centred=name == "ece") for name, value in point.items()}


def reliability(ranking: Ranking) -> list[CalibrationBin]:
    """Bins of equal size, from the lowest probability to the highest."""
    ones = np.ones((1, len(ranking.p)))
    n, expected, observed = (part[0] for part in ranking.bins(ones, ones * ranking.y))
    return [
        CalibrationBin(n=int(k), mean_probability=float(e / k), observed=float(o / k))
        for k, e, o in zip(n[::-1], expected[::-1], observed[::-1], strict=True)
    ]


def noise_floor(ranking: Ranking, config: EvaluateConfig) -> float:
    """95th percentile of the ECE when every label is drawn from its own stated probability.

    A measured ECE below this says nothing against the calibration: so few images cannot show less.
    """
    rng = np.random.default_rng(config.seed)
    n = len(ranking.p)
    chunk = max(1, min(NOISE_SIMULATIONS, 2_000_000 // n))
    errors = []
    for start in range(0, NOISE_SIMULATIONS, chunk):
        labels = rng.random((min(chunk, NOISE_SIMULATIONS - start), n)) < ranking.p
        gap = np.add.reduceat(labels - ranking.p, ranking.bin_starts, axis=1)
        errors.append(np.abs(gap).sum(axis=1) / n)
    return float(np.percentile(np.concatenate(errors), 95))


def bands(judged: Judged) -> dict[str, ConfidenceBand]:
    """How often the verdicts of each confidence band were right."""
    said = np.array(judged.confidence)
    found: dict[str, ConfidenceBand] = {}
    for name in CONFIDENCES:
        rows = said == name
        accuracy = proportion(judged.right[rows], judged.units[rows])
        found[name] = ConfidenceBand(n=int(rows.sum()), accuracy=accuracy)
    return found


def slice_figures(judged: Judged, group: Group) -> Slice:
    """Figures of one part of the images."""
    figures = counted(judged.take(group.rows))
    return Slice(
        dimension=group.dimension,
        name=group.name,
        n=len(group.rows),
        accuracy=figures["accuracy"],
        fpr=figures.get("fpr"),
        fnr=figures.get("fnr"),
    )


def roc_points(ranking: Ranking) -> list[tuple[float, float, float]]:
    """(FPR, TPR, threshold) with falling thresholds, thinned; empty where one class is missing.

    The first point is (0, 0) at threshold 1: finite, because JSON and the metrics viewers know no infinity.
    """
    positives = int(ranking.y.sum())
    negatives = len(ranking.y) - positives
    if not positives or not negatives:
        return []
    true = np.cumsum(ranking.y)[ranking.ends] / positives
    false = np.cumsum(~ranking.y)[ranking.ends] / negatives
    keep = np.unique(np.linspace(0, len(true) - 1, ROC_POINTS - 1).round().astype(np.int64))
    points = zip(false[keep].tolist(), true[keep].tolist(), ranking.p[ranking.ends[keep]].tolist(), strict=True)
    return [(0.0, 0.0, 1.0), *points]


def precision_recall_points(ranking: Ranking) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, from the highest to the lowest, thinned for plots."""
    true = np.cumsum(ranking.y)[ranking.ends]
    keep = np.unique(np.linspace(0, len(true) - 1, ROC_POINTS).round().astype(np.int64))
    return true[keep] / max(int(ranking.y.sum()), 1), true[keep] / (ranking.ends[keep] + 1)
