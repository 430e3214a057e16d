"""From a logit to a verdict: calibration, threshold and the one confidence rule."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from serving.detector.labels import Label

Confidence = Literal["high", "medium", "low"]
CONFIDENCES: Final[tuple[Confidence, ...]] = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How this model's logits are read; stands in the manifest and nowhere else.

    `probability = sigmoid(logit / temperature + bias)` is the calibrated probability of `ai_generated`.
    """

    temperature: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    high_confidence: float = 0.80
    medium_confidence: float = 0.65

    def probabilities(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated probability of `ai_generated` for each logit, float64 of the same shape."""
        z = np.asarray(logits, dtype=np.float64) / self.temperature + self.bias
        # the two branches keep exp() from overflowing at either end
        e = np.exp(-np.abs(z))
        return np.where(z >= 0, 1.0 / (1.0 + e), e / (1.0 + e))

    def decide(self, logit: float) -> "Verdict":
        """Verdict for one logit."""
        return self.verdict(float(self.probabilities(logit)))

    def verdict(self, probability: float) -> "Verdict":
        """Verdict for one calibrated probability of `ai_generated`."""
        prediction: Label = "ai_generated" if probability >= self.threshold else "real"
        of_predicted = probability if prediction == "ai_generated" else 1.0 - probability
        return Verdict(prediction, probability, self.confidence(of_predicted))

    def confidence(self, probability_of_predicted: float) -> Confidence:
        """Band of the calibrated probability of the predicted class."""
        if probability_of_predicted >= self.high_confidence:
            return "high"
        return "medium" if probability_of_predicted >= self.medium_confidence else "low"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one image; `probability` is that of `ai_generated`, whatever the prediction."""

    prediction: Label
    probability: float
    confidence: Confidence
