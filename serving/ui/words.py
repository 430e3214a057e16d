"""The words the pages share, so that a thing is called the same everywhere."""

import math
import re
from datetime import datetime
from typing import Any, Final

SUPPLEMENTARY: Final = (
    "A score is a supplementary signal, not proof: combine it with other evidence before acting on a listing."
)

COLOURS: Final = {"likely_real": "#2f8f6f", "review": "#c58a1a", "likely_ai": "#d4551f"}
"""Of a decision's border; told apart on white and on black, and never the only sign."""
FIGURES: Final = {
    "accuracy": "Accuracy",
    "precision": "Precision: of those called AI-generated, how many are",
    "recall": "Recall: of the generated, how many are found",
    "f1": "F1 (precision and recall together)",
    "roc_auc": "Area under the ROC curve",
    "pr_auc": "Area under the precision-recall curve",
    "tpr_at_1pct_fpr": "Found at 1 % false alarms",
    "fpr": "False alarms: real photos called AI-generated",
    "fnr": "Misses: generated photos called real",
    "ece": "Calibration error",
    "brier": "Brier score",
    "false_ai": "Real photos called AI-generated",
}

_PUNCTUATION: Final = re.compile(r"[!-/:-@\[-`{-~]")


def plain(text: str) -> str:
    """Text of others, such as a file's name, as it is: nothing in it is taken for Markdown."""
    return _PUNCTUATION.sub(r"\\\g<0>", text)


def percent(share: float | None, digits: int = 1) -> str:
    """0.953 -> `95.3 %`; a dash for what is not known."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def figure(value: Any) -> str:
    """A figure of the API with four significant digits; a dash for null."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clock(moment: datetime) -> str:
    """UTC, to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def figure_name(name: str) -> str:
    """A figure's name for people; one that is not known here loses its underscores."""
    return FIGURES.get(name, name.replace("_", " ").capitalize())
