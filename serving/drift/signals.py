"""What is watched: the model's reference statistics as a baseline, and how a window of traffic compares with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from serving.detector.decision import CONFIDENCES, DecisionRule
from serving.detector.image import ImageFormat
from serving.detector.labels import LABELS
from serving.detector.statistics import DIGITS, Reference
from serving.drift import significance
from serving.drift.significance import Counts, Tested, Values

Group = Literal["score", "mix", "input"]

FEW_VALUES: Final = 20
"""A number that takes at most so many values (all photos 64 px, five JPEG qualities) is compared as a category."""

MIN_VALUES: Final = 50
"""A signal with fewer values in the window, or in the reference, is not tested."""

FORMATS: Final[tuple[ImageFormat, ...]] = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF")

SIGNALS: Final[dict[str, Group]] = {
    "mean_probability": "score",
    "score_psi": "score",
    "score_ks": "score",
    "confidence_mix": "score",
    "prediction_mix": "mix",
    "min_side": "input",
    "megapixels": "input",
    "aspect": "input",
    "jpeg_quality": "input",
    "format": "input",
}
"""Every signal and the kind of cause it speaks for."""

FAMILIES: Final = (
    ("mean_probability", "score_psi", "score_ks", "confidence_mix", "prediction_mix"),
    ("min_side", "megapixels"),
    ("aspect",),
    ("jpeg_quality",),
    ("format",),
)
"""Signals that are views of one thing; families are nearly independent of each other."""

_COLUMNS: Final = [[list(SIGNALS).index(name) for name in family] for family in FAMILIES]

NUMERIC: Final = ("min_side", "megapixels", "aspect", "jpeg_quality")


@dataclass(frozen=True, slots=True)
class Windows:
    """w windows of n predictions each; every array has shape (w, n)."""

    logits: Values
    predictions: Counts
    """Class ids, 0 real and 1 ai_generated."""
    confidences: Counts
    """Positions in `CONFIDENCES`."""
    numbers: dict[str, Values]
    """Input quality by name (`NUMERIC`), log2 where the reference's is; NaN where a file has none."""
    formats: Counts
    """Positions in `FORMATS`."""


@dataclass(frozen=True, slots=True)
class Floors:
    """Smallest effects worth an alarm, so that significance alone pages nobody."""

    distance: float = 0.05
    """Of Kolmogorov-Smirnov, total variation and mean probability: five points of the traffic moved."""
    psi: float = 0.02

    def of(self, signal: str) -> float:
        """Floor of one signal."""
        return self.psi if signal == "score_psi" else self.distance


@dataclass(frozen=True, slots=True)
class Assessment:
    """Tests of w windows over all signals; arrays of shape (w, signals) in the order of `SIGNALS`."""

    distances: Values
    p_values: Values
    adjusted: Values
    """For all signals of the window together (`adjusted_by_family`); NaN where a signal could not be tested."""

    def moved(self, alpha: float, floors: Floors) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which signals moved, significantly at family-wise level `alpha` and by at least their floor."""
        floor = np.array([floors.of(name) for name in SIGNALS])
        return (self.adjusted <= alpha) & (self.distances >= floor)


class _Number:
    """Baseline of one numeric signal: its distribution, or its values where there are few."""

    def __init__(self, values: Sequence[float]) -> None:
        self.ordered = np.sort(np.asarray(values, dtype=np.float64))
        distinct, counts = np.unique(self.ordered, return_counts=True)
        self.values = distinct if len(distinct) <= FEW_VALUES else None
        self.counts = np.append(counts, 0)

    def test(self, windows: Values) -> Tested:
        """Compare windows of shape (w, n); a row with missing values is tested on those it has."""
        missing = np.isnan(windows)
        if missing.any():
            return _stack([self._row(row[~gaps]) for row, gaps in zip(windows, missing, strict=True)])
        if min(len(self.ordered), windows.shape[1]) < MIN_VALUES:
            return _untested(len(windows))
        if self.values is None:
            return significance.kolmogorov_smirnov(self.ordered, windows)
        known = len(self.values)
        position = np.minimum(np.searchsorted(self.values, windows), known - 1)
        category = np.where(self.values[position] == windows, position, known)
        return significance.homogeneity(self.counts, tally(category, known + 1))

    def _row(self, values: Values) -> Tested:
        return self.test(values[None]) if len(values) else _untested(1)


class Baseline:
    """The reference of one model version, made ready once; `assess` may be called from any thread."""

    def __init__(self, reference: Reference, rule: DecisionRule) -> None:
        logits = np.sort(np.asarray(reference.logits, dtype=np.float64))
        self.rule = rule
        self.size = len(logits)
        self.logits = logits
        self.probabilities = rule.probabilities(logits)
        # fewer bins for a small reference, so that each keeps enough images for the chi-square law
        self._edges = significance.quantile_edges(logits, int(np.clip(self.size // 10, 2, significance.PSI_BINS)))
        self._binned = significance.binned(self._edges, logits[None])[0]
        self._predictions = np.array([reference.prediction_counts.get(name, 0) for name in LABELS])
        self._confidences = np.array([reference.confidence_counts.get(name, 0) for name in CONFIDENCES])
        self._formats = np.array([reference.format_counts.get(name, 0) for name in FORMATS])
        self._numbers = {
            "min_side": _Number(reference.log2_min_side),
            "megapixels": _Number(reference.log2_megapixels),
            "aspect": _Number(reference.log2_aspect),
            "jpeg_quality": _Number(reference.jpeg_quality),
        }

    def assess(self, windows: Windows) -> Assessment:
        """Test every signal of w windows."""
        logits = windows.logits.round(DIGITS)
        tested = {
            "mean_probability": self._mean(logits),
            "score_psi": significance.population_stability(self._binned, significance.binned(self._edges, logits)),
            "score_ks": significance.kolmogorov_smirnov(self.logits, logits),
            "confidence_mix": significance.homogeneity(self._confidences, tally(windows.confidences, len(CONFIDENCES))),
            "prediction_mix": significance.homogeneity(self._predictions, tally(windows.predictions, len(LABELS))),
            "format": significance.homogeneity(self._formats, tally(windows.formats, len(FORMATS))),
        }
        for name, number in self._numbers.items():
            tested[name] = number.test(windows.numbers[name].round(DIGITS))
        p_values = np.stack([tested[name].p_value for name in SIGNALS], axis=1)
        return Assessment(
            distances=np.stack([tested[name].distance for name in SIGNALS], axis=1),
            p_values=p_values,
            adjusted=significance.adjusted_by_family(p_values, _COLUMNS),
        )

    def shares(self, counts: Literal["prediction", "confidence", "format"]) -> dict[str, float]:
        """Shares of the reference by category name."""
        names: tuple[str, ...]
        names, values = {
            "prediction": (LABELS, self._predictions),
            "confidence": (CONFIDENCES, self._confidences),
            "format": (FORMATS, self._formats),
        }[counts]
        return dict(zip(names, (values / max(values.sum(), 1)).tolist(), strict=True))

    def median(self, signal: str) -> float:
        """Median of a numeric signal in the reference; NaN where it has no value."""
        ordered = self._numbers[signal].ordered
        return float(np.median(ordered)) if len(ordered) else float("nan")

    def _mean(self, logits: Values) -> Tested:
        from scipy.special import erfc

        probabilities = self.rule.probabilities(logits)
        gap = np.abs(probabilities.mean(axis=1) - self.probabilities.mean())
        n = logits.shape[1]
        variance = probabilities.var(axis=1) / n + self.probabilities.var() / self.size
        with np.errstate(divide="ignore", invalid="ignore"):
            p_value = erfc(gap / np.sqrt(2.0 * variance))
        return Tested(gap, np.where(variance > 0, p_value, np.where(gap > 0, 0.0, np.nan)))


def tally(categories: Counts, k: int) -> Counts:
    """Counts per category, shape (w, k), of category ids (w, n)."""
    rows = len(categories)
    shifted = categories + k * np.arange(rows)[:, None]
    return np.bincount(shifted.ravel(), minlength=rows * k).reshape(rows, k)


def _untested(rows: int) -> Tested:
    return Tested(np.zeros(rows), np.full(rows, np.nan))


def _stack(rows: Sequence[Tested]) -> Tested:
    return Tested(np.concatenate([r.distance for r in rows]), np.concatenate([r.p_value for r in rows]))
