"""What to do with a photo: likely real, likely generated, or a person has to look; the one rule, and its reasons.

| evidence | decision |
|---|---|
| the file declares itself generated | `likely_ai` |
| the file declares itself edited with AI, or its signed statement no longer fits it | at least `review` |
| the photo lies outside of what the model was trained on | `review`, whatever the score |
| the score lies between the two thresholds | `review` |
| the score alone | `likely_real` below the lower threshold, `likely_ai` from the upper one on |

A declared capture changes nothing: whoever wants a generated picture taken for a photo can declare that, too. The
model's `prediction` and `probability` are the pixels' alone and stand beside all this unchanged.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field

from serving.detector.decision import DecisionRule, Verdict
from serving.detector.domain import Domain, Signal
from serving.platform.frozen import Frozen
from serving.provenance.credentials import Verifier
from serving.provenance.record import Provenance
from serving.provenance.wording import statements

Decision = Literal["likely_real", "review", "likely_ai"]
DECISIONS: Final[tuple[Decision, ...]] = ("likely_real", "review", "likely_ai")
"""In order of suspicion."""

ReasonCode = Literal[
    "declared_ai_generated",
    "declared_ai_edited",
    "credentials_broken",
    "outside_domain",
    "score_real",
    "score_between",
    "score_ai",
]

_SIGNALS: Final = {
    "min_side_px": "smaller side {value:g} px",
    "detail": "detail {value:.2f}",
    "jpeg_quality": "JPEG quality {value:.0f}",
}


class DecisionBands(Frozen):
    """The two thresholds of a decision, on the calibrated probability of `ai_generated`."""

    real_below: float = Field(ge=0.0, le=1.0)
    """Below it: `likely_real`. Of generated photos like those of training, at most `alpha_ai` lie there."""
    ai_from: float = Field(ge=0.0, le=1.0)
    """At or above it: `likely_ai`. Of real photos like those of training, at most `alpha_real` lie there."""
    alpha_real: float | None = None
    """Promised share of real photos called `likely_ai`; None: no promise (chosen by hand, or an older bundle)."""
    alpha_ai: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How one deployment decides: its own thresholds where it has some, and whom it trusts to sign."""

    verifier: Verifier | None = None
    real_below: float | None = None
    ai_from: float | None = None

    def bands(self, rule: DecisionRule, trained: DecisionBands | None) -> DecisionBands:
        """The thresholds in force; a bundle without its own gets those of its confidence: low is for review."""
        found = trained or DecisionBands(
            real_below=min(rule.threshold, 1.0 - rule.medium_confidence),
            ai_from=max(rule.threshold, rule.medium_confidence),
        )
        if self.real_below is None and self.ai_from is None:
            return found
        return DecisionBands(
            real_below=found.real_below if self.real_below is None else self.real_below,
            ai_from=found.ai_from if self.ai_from is None else self.ai_from,
            alpha_real=found.alpha_real if self.ai_from is None else None,
            alpha_ai=found.alpha_ai if self.real_below is None else None,
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a stable code for programs, a sentence for people. Equal evidence gives equal words."""

    code: ReasonCode
    sentence: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A decision with everything it rests on."""

    decision: Decision
    reasons: tuple[Reason, ...]
    """The weightiest first."""
    domain: Domain
    provenance: Provenance
    image_sha256: str

    def document(self) -> dict[str, Any]:
        """The fields of every answer as plain JSON values."""
        return {
            "decision": self.decision,
            "reasons": [{"code": reason.code, "sentence": reason.sentence} for reason in self.reasons],
            "domain": {
                "inside": self.domain.inside,
                "signals": [
                    {"name": s.name, "value": s.value, "low": s.low, "high": s.high, "inside": s.inside}
                    for s in self.domain.signals
                ],
            },
            "provenance": self.provenance.document(),
            "image_sha256": self.image_sha256,
        }


def conclude(
    verdict: Verdict, bands: DecisionBands, domain: Domain, provenance: Provenance, image_sha256: str
) -> Conclusion:
    """Apply the table above."""
    decision, score = _of_score(verdict.probability, bands)
    reasons = []
    if not domain.inside:
        decision, score = "review", _outside(domain.outside_by)
    if provenance.c2pa.broken:
        decision = _at_least("review", decision)
        sentence = "The file's Content Credentials do not fit it: it or they were changed after signing."
        reasons.append(Reason("credentials_broken", sentence))
    if provenance.declared == "ai_edited":
        decision = _at_least("review", decision)
        sentence = f"The file says it was edited with AI or partly generated: {statements(provenance)}."
        reasons.insert(0, Reason("declared_ai_edited", sentence))
    elif provenance.declared == "ai_generated":
        decision = "likely_ai"
        sentence = f"The file says it was generated by AI: {statements(provenance)}."
        reasons.insert(0, Reason("declared_ai_generated", sentence))
    return Conclusion(decision, (*reasons, score), domain, provenance, image_sha256)


def _of_score(probability: float, bands: DecisionBands) -> tuple[Decision, Reason]:
    told = f"The model's score is {probability:.3f}"
    if probability < bands.real_below:
        rate = "" if bands.alpha_ai is None else f", where at most {bands.alpha_ai:.1%} of generated photos lie"
        return "likely_real", Reason("score_real", f"{told}, below {bands.real_below:.3f}{rate}.")
    if probability >= bands.ai_from:
        rate = "" if bands.alpha_real is None else f", where at most {bands.alpha_real:.1%} of real photos lie"
        return "likely_ai", Reason("score_ai", f"{told}, not below {bands.ai_from:.3f}{rate}.")
    between = f"between {bands.real_below:.3f} and {bands.ai_from:.3f}: too close to call"
    return "review", Reason("score_between", f"{told}, {between}.")


def _outside(signals: tuple[Signal, ...]) -> Reason:
    parts = [f"{_SIGNALS[signal.name].format(value=signal.value)} (trained: {_range(signal)})" for signal in signals]
    sentence = f"The photo is unlike those the model was trained on, so its score says nothing: {', '.join(parts)}."
    return Reason("outside_domain", sentence)


def _range(signal: Signal) -> str:
    if signal.high is None:
        return f"{signal.low:g} and more"
    return f"{signal.low or 0:g} to {signal.high:g}"


def _at_least(least: Decision, decision: Decision) -> Decision:
    return max(least, decision, key=DECISIONS.index)
