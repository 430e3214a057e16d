"""Can size, type, quantisation or EXIF alone tell the classes apart? Then a model learns those, not the pictures."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from components.verify_data.findings import Shortcut
from components.verify_data.measurements import Survey
from components.verify_data.scratch import places

ALL_TOGETHER: Final = "all together"
_BINS: Final = 16
_FOLDS: Final = 2
_RIDGE: Final = 1.0
_MIN_ROWS: Final = 20
"""Per class; with fewer an AUC is noise."""
_MAX_ROWS: Final = 20_000
"""Rows taken, evenly spread; enough for an AUC within one hundredth."""

Floats = npt.NDArray[np.float64]


def audit(survey: Survey, keep: Callable[[slice], npt.NDArray[np.bool_]] | None = None) -> list[Shortcut]:
    """AUC of each trivial feature alone and of a logistic model over all of them, strongest first.

    A feature is cut into bins (its values where they are few, else 16 quantiles) and each bin scores with the class
    rate it had in the other half of the data, so that a trace which is not monotone is found too and noise stays at
    0.5. Empty where a class has under 20 images.

    Args:
        survey: of the images; those that do not decode are left out.
        keep: which of a piece of its rows are looked at; None: all.
    """
    decoded = survey.rows["decoded"]
    chosen = places(len(decoded), lambda piece: decoded[piece] if keep is None else decoded[piece] & keep(piece))
    if len(chosen) > _MAX_ROWS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _MAX_ROWS).astype(int)]
    target = survey.rows["label"][chosen].astype(bool)
    if min(target.sum(), (~target).sum()) < _MIN_ROWS:
        return []
    binned = {name: _bins(values) for name, values in _features(survey, chosen).items()}
    folds = np.random.default_rng(0).permutation(len(chosen)) % _FOLDS
    found = [Shortcut(feature=name, auc=_alone(bins, target, folds)) for name, bins in binned.items()]
    found.append(Shortcut(feature=ALL_TOGETHER, auc=_together(list(binned.values()), target, folds)))
    return sorted(found, key=lambda shortcut: -shortcut.auc)


def _features(survey: Survey, rows: npt.NDArray[np.intp]) -> dict[str, Floats]:
    def numbers(name: str) -> Floats:
        return survey.numbers(name, rows)

    width, height = numbers("width"), numbers("height")
    encoded = numbers("encoded_bytes")
    return {
        "file size": encoded,
        "bytes per pixel": encoded / (width * height),
        "width": width,
        "height": height,
        "aspect ratio": width / height,
        "format": numbers("format"),
        "colour mode": numbers("mode"),
        "luminance quantisation": numbers("luma_quality"),
        "chrominance quantisation": numbers("chroma_quality"),
        "EXIF": numbers("exif"),
        "ICC profile": numbers("icc"),
    }


def _bins(values: Floats) -> npt.NDArray[np.intp]:
    """Bin number of each value; a missing value is a bin of its own."""
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    edges = distinct if len(distinct) <= _BINS else np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, values, side="right")
    bins[np.isnan(values)] = len(edges) + 1
    return np.unique(bins, return_inverse=True)[1].astype(np.intp)


def _alone(bins: npt.NDArray[np.intp], target: npt.NDArray[np.bool_], folds: npt.NDArray[np.intp]) -> float:
    score = np.empty(len(bins))
    for fold in range(_FOLDS):
        fitted = folds != fold
        total = np.bincount(bins[fitted], minlength=bins.max() + 1)
        positive = np.bincount(bins[fitted], weights=target[fitted], minlength=bins.max() + 1)
        score[~fitted] = ((positive + 1.0) / (total + 2.0))[bins[~fitted]]
    return _mean_auc(score, target, folds)


def _together(
    features: list[npt.NDArray[np.intp]], target: npt.NDArray[np.bool_], folds: npt.NDArray[np.intp]
) -> float:
    from scipy.optimize import minimize

    design = np.concatenate([np.eye(bins.max() + 1, dtype=bool)[bins] for bins in features], axis=1)
    sign = np.where(target, 1.0, -1.0)
    score = np.empty(len(target))
    for fold in range(_FOLDS):
        fitted = folds != fold
        x, y = design[fitted].astype(np.float64), sign[fitted]

        def loss(weights: Floats, x: Floats = x, y: Floats = y) -> tuple[float, Floats]:
            margin = y * (x @ weights)
            gradient = -(x.T @ (y / (1.0 + np.exp(np.clip(margin, -500, 500))))) + _RIDGE * weights
            return float(np.logaddexp(0.0, -margin).sum() + 0.5 * _RIDGE * weights @ weights), gradient

        fit = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
        score[~fitted] = design[~fitted] @ fit.x
    return _mean_auc(score, target, folds)


def _mean_auc(score: Floats, target: npt.NDArray[np.bool_], folds: npt.NDArray[np.intp]) -> float:
    """Mean of the folds' AUCs; scores of two fits are not on one scale."""
    return float(np.mean([_auc(score[folds == fold], target[folds == fold]) for fold in range(_FOLDS)]))


def _auc(score: Floats, target: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve by mid-ranks (Mann-Whitney)."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2.0)[inverse]
    positives, negatives = int(target.sum()), int((~target).sum())
    if not positives or not negatives:
        return 0.5
    return float((ranks[target].sum() - positives * (positives + 1) / 2) / (positives * negatives))
