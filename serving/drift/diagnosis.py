"""Why the traffic may have moved, in words an on-call engineer can act on."""

from collections.abc import Collection
from typing import Final

import numpy as np

from serving.drift import significance
from serving.drift.signals import SIGNALS, Baseline, Windows
from serving.drift.significance import Values

WITHIN_CLASS_ALPHA: Final = 0.01
WITHIN_CLASS_DISTANCE: Final = 0.1
"""A changed mix alone moves scores inside a predicted class a little, by the share that is judged wrongly."""
MIN_OF_CLASS: Final = 50


def diagnose(moved: Collection[str], baseline: Baseline, window: Windows) -> str:
    """One or two sentences on the likely cause; empty when nothing moved.

    Args:
        moved: names of the signals that moved.
        baseline: what they moved from.
        window: the one window (w = 1) that was tested.
    """
    groups = {SIGNALS[name] for name in moved}
    if not groups:
        return ""
    if "input" in groups:
        details = ", ".join(
            _input_change(name, baseline, window) for name in SIGNALS if name in moved and _is_input(name)
        )
        also = " Scores moved with it." if groups - {"input"} else " Scores did not move."
        return f"input quality moved ({details}): look for an ingestion change first.{also}"
    if "mix" in groups and _same_within_classes(baseline, window.logits[0]):
        before, now = baseline.shares("prediction")["ai_generated"], float(window.predictions.mean())
        return (
            f"class mix moved: {now:.0%} of the images are called ai_generated, {before:.0%} in the reference, while "
            "scores inside each class look the same: prevalence changed, or one client's share of the traffic."
        )
    return (
        "scores moved, inputs did not: a new generator or new content. Label 200-300 recent images "
        "(POST /feedback) before trusting the scores."
    )


def _is_input(name: str) -> bool:
    return SIGNALS[name] == "input"


def _input_change(name: str, baseline: Baseline, window: Windows) -> str:
    if name == "format":
        return "format mix"
    before, values = baseline.median(name), window.numbers[name][0]
    now = float(np.nanmedian(values))
    if name != "jpeg_quality":
        before, now = 2.0**before, 2.0**now
    unit = {"min_side": " px", "megapixels": " MP"}.get(name, "")
    return f"{name} {before:.3g} -> {now:.3g}{unit}"


def _same_within_classes(baseline: Baseline, logits: Values) -> bool:
    """Whether the scores of each predicted class are distributed as in the reference: then only the mix moved."""
    threshold, rule = baseline.rule.threshold, baseline.rule
    reference_high, window_high = baseline.probabilities >= threshold, rule.probabilities(logits) >= threshold
    for of_reference, of_window in ((reference_high, window_high), (~reference_high, ~window_high)):
        reference, window = baseline.logits[of_reference], logits[of_window]
        if min(len(reference), len(window)) < MIN_OF_CLASS:
            continue
        found = significance.kolmogorov_smirnov(reference, window[None])
        if found.p_value[0] <= WITHIN_CLASS_ALPHA and found.distance[0] >= WITHIN_CLASS_DISTANCE:
            return False
    return True
