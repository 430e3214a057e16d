"""What a decision was made by, to answer for it later: which model, which thresholds, how often it errs."""

from typing import Any, Final

from serving.detector.conclusion import Policy
from serving.detector.detector import Detector

UNGATED: Final = "This model never went through the quality gate: nothing is known here of how often it errs."


def record_of(detector: Detector, release: dict[str, dict[str, Any]], policy: Policy) -> dict[str, Any]:
    """The record of every decision that this model makes under a deployment's policy, as plain JSON values.

    Args:
        detector: the model.
        release: what the registry added to its bundle: `evaluation` and `verdict`, each absent where it is not.
        policy: by which it decides.
    """
    bands = detector.bands(policy)
    return {
        "model_digest": detector.manifest.digest,
        "thresholds": {
            "prediction": detector.rule.threshold,
            "real_below": bands.real_below,
            "ai_from": bands.ai_from,
            "alpha_real": bands.alpha_real,
            "alpha_ai": bands.alpha_ai,
        },
        "error_rates": _error_rates(release.get("evaluation", {}).get("test", {})),
        "caveat": caveat_of(release),
    }


def caveat_of(release: dict[str, dict[str, Any]]) -> str | None:
    """What whoever reads this model's verdicts has to know first; None where nothing is noted."""
    if not release.get("verdict"):
        return UNGATED
    return str(release.get("evaluation", {}).get("caveat") or "") or None


def _error_rates(test: dict[str, Any]) -> dict[str, Any] | None:
    metrics = test.get("metrics", {})
    false_alarms, misses = (_rate(metrics.get(name)) for name in ("fpr", "fnr"))
    if false_alarms is None and misses is None:
        return None
    return {"false_alarms": false_alarms, "misses": misses, "test_images": test.get("n")}


def _rate(found: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else {name: found.get(name) for name in ("value", "low", "high")}
