"""From validation logits to the decision rule: temperature and bias by maximum likelihood, threshold by policy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.train.config import DecisionConfig, TrainConfig
from serving.detector.conclusion import DecisionBands
from serving.detector.decision import DecisionRule
from serving.detector.engine import Floats

_MAX_LOG_TEMPERATURE = 4.0
"""e^-4 to e^4 is as far as the temperature may go."""
_FACTORS = 200
"""Steps of the search for errors that leave few photos for review, each some percent above the last."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The rule, and the log-loss of the images it was fitted on without and with it."""

    rule: DecisionRule
    bands: DecisionBands
    log_loss_before: float
    log_loss_after: float


def calibrate(logits: Floats, labels: Floats, corrupted_logits: Floats, config: TrainConfig) -> Calibration:
    """Fit the rule on clean validation images and as many corrupted ones.

    Args:
        logits: of the clean images, (n,).
        labels: 1 is ai_generated, (n,).
        corrupted_logits: of the same images after augmentation, (n,); empty when training did not augment.
        config: the threshold policy.
    """
    repeats = 1 + (len(corrupted_logits) > 0)
    z = np.concatenate([logits, corrupted_logits]).astype(np.float64)
    y = np.tile(labels, repeats).astype(np.float64)
    fitted = _fit(z, y)
    probabilities = fitted.probabilities(logits)
    threshold = choose_threshold(probabilities, labels, config)
    rule = DecisionRule(temperature=fitted.temperature, bias=fitted.bias, threshold=threshold)
    bands = choose_bands(probabilities, labels, threshold, config.decision)
    return Calibration(rule, bands, log_loss(z, y), log_loss(z / rule.temperature + rule.bias, y))


def log_loss(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> float:
    """Mean negative log-likelihood of labels under logits."""
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def choose_threshold(probabilities: npt.NDArray[np.float64], labels: npt.ArrayLike, config: TrainConfig) -> float:
    """Threshold on the calibrated probability, by `threshold_policy`.

    `cost` needs no data: with calibrated probabilities the expected cost is least at C_FP / (C_FP + C_FN).
    `target_fpr` is the split-conformal quantile of the real photos' scores, so that the promise holds for new photos
    of the same kind and not only for these.
    """
    y = np.asarray(labels) == 1
    if config.threshold_policy == "cost":
        return config.false_positive_cost / (config.false_positive_cost + config.false_negative_cost)
    if config.threshold_policy == "target_fpr":
        real = np.sort(probabilities[~y])
        rank = int(np.ceil((1.0 - config.target_fpr) * (len(real) + 1)))
        highest = real[rank - 1] if rank <= len(real) else 1.0
        return float(min(np.nextafter(highest, 2.0), 1.0))
    order = np.argsort(-probabilities, kind="stable")
    candidates = probabilities[order]
    true_positives = np.cumsum(y[order])
    f1 = 2 * true_positives / (np.arange(1, len(y) + 1) + y.sum())
    # equal scores cannot be told apart: only the last of each run is a threshold one can have
    last = np.append(candidates[1:] != candidates[:-1], True)
    best = int(np.argmax(np.where(last, f1, -1.0)))
    below = candidates[best + 1] if best + 1 < len(candidates) else 0.0
    return float((candidates[best] + below) / 2)


def choose_bands(
    probabilities: npt.NDArray[np.float64], labels: npt.ArrayLike, threshold: float, config: DecisionConfig
) -> DecisionBands:
    """The two thresholds of a decision, by class-conditional split conformal prediction (V. Vovk, 2012).

    A new real photo scores at or above `ai_from` with a chance of at most `alpha_real`, a new generated one below
    `real_below` with one of at most `alpha_ai`. Neither crosses the threshold of the prediction, so that a decision
    never contradicts it; that only makes both rarer. Too few photos for a promise leave its decision out altogether.
    With `max_review` both errors are the smallest in their proportion that leave so few photos between the thresholds,
    neither larger than what the prediction's own threshold errs.
    """
    y = np.asarray(labels) == 1
    found = _bands(probabilities, y, threshold, config.alpha_real, config.alpha_ai)
    if config.max_review is None or _between(found, probabilities) <= config.max_review:
        return found
    # what the threshold of the prediction alone would err: a decision never errs more
    ends = (
        (int((probabilities[~y] >= threshold).sum()) + 1) / (int((~y).sum()) + 1),
        (int((probabilities[y] < threshold).sum()) + 1) / (int(y.sum()) + 1),
    )
    starts = config.alpha_real, config.alpha_ai
    for factor in np.geomspace(1.0, max(1.0, *np.divide(ends, starts)), _FACTORS).tolist():
        real, ai = (round(min(start * factor, max(start, end)), 4) for start, end in zip(starts, ends, strict=True))
        found = _bands(probabilities, y, threshold, real, ai)
        if _between(found, probabilities) <= config.max_review:
            break
    return found


def _between(bands: DecisionBands, probabilities: npt.NDArray[np.float64]) -> float:
    return float(((probabilities >= bands.real_below) & (probabilities < bands.ai_from)).mean())


def _bands(
    probabilities: npt.NDArray[np.float64],
    y: npt.NDArray[np.bool_],
    threshold: float,
    alpha_real: float,
    alpha_ai: float,
) -> DecisionBands:
    real, ai = np.sort(probabilities[~y]), np.sort(probabilities[y])
    # the smallest threshold that at most alpha of the n + 1 exchangeable scores can reach
    kept = int(np.ceil((1.0 - alpha_real) * (len(real) + 1)))
    ai_from = float(np.nextafter(real[kept - 1], 2.0)) if kept <= len(real) else 1.0
    lost = int(np.floor(alpha_ai * (len(ai) + 1)))
    real_below = float(ai[lost - 1]) if lost >= 1 else 0.0
    return DecisionBands(
        real_below=min(real_below, threshold),
        ai_from=min(1.0, max(ai_from, threshold)),
        alpha_real=alpha_real,
        alpha_ai=alpha_ai,
    )


def _fit(z: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> DecisionRule:
    from scipy.optimize import minimize

    # Platt's targets: the fit stays finite, and modest, on a split that the network separates perfectly
    positives, n = y.sum(), len(y)
    targets = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (n - positives + 2))

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scale, bias = np.exp(-parameters[0]), parameters[1]
        scaled = z * scale
        residual = 1.0 / (1.0 + np.exp(-np.clip(scaled + bias, -700, 700))) - targets
        gradient = np.array([-np.mean(residual * scaled), np.mean(residual)])
        return log_loss(scaled + bias, targets), gradient

    bounds = [(-_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE), (-20.0, 20.0)]
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds)
    return DecisionRule(temperature=float(np.exp(found.x[0])), bias=float(found.x[1]))
