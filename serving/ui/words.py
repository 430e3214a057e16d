"""The words the pages share, so that a thing is called the same everywhere."""

import math
import re
from datetime import datetime
from typing import Any, Final

from serving.ui.client import Verdict

SUPPLEMENTARY: Final = (
    "A score is a supplementary signal, not proof: combine it with other evidence before acting on a listing."
)

LABEL: Final = {"real": "Real photo", "ai_generated": "AI-generated"}
MARK: Final = {"real": "●", "ai_generated": "▲"}
"""A shape beside each verdict, so that nothing hangs on colour."""

_PUNCTUATION: Final = re.compile(r"[!-/:-@\[-`{-~]")


def label(prediction: str) -> str:
    """`▲ AI-generated`."""
    return f"{MARK.get(prediction, '■')} {LABEL.get(prediction, prediction)}"


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


def sentence(verdict: Verdict) -> str:
    """The whole verdict in one sentence."""
    return (
        f"Calibrated probability of AI generation: {percent(verdict.probability)}. "
        f"At {percent(verdict.threshold)} or more a photo is called AI-generated. "
        f"Confidence: {verdict.confidence}. Model version {verdict.model_version}."
    )
