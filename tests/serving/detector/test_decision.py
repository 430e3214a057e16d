"""From a logit to a verdict: calibration, threshold and bands, each at its very limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.detector.decision import DecisionRule, Verdict

RULE = DecisionRule(temperature=2.0, bias=0.5, threshold=0.6, high_confidence=0.9, medium_confidence=0.7)


def test_a_rule_without_words_is_the_plain_one() -> None:
    assert DecisionRule() == DecisionRule(1.0, 0.0, 0.5, 0.80, 0.65)


@given(st.floats(-30, 30))
def test_the_probability_is_that_of_the_calibrated_logit(logit: float) -> None:
    assert RULE.probabilities(logit) == pytest.approx(1 / (1 + np.exp(-(logit / 2.0 + 0.5))))


def test_no_logit_overflows_and_shapes_are_kept() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = RULE.probabilities(np.array([[-1e5, -1.0], [1e5, 0.0]], dtype=np.float32))
    assert found.dtype == np.float64
    assert found.shape == (2, 2)
    assert found[:, 0].tolist() == [0.0, 1.0]
    assert found[0, 1] == 0.5
    assert DecisionRule().probabilities([0.0, 0.0]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("probability", "prediction", "confidence"),
    [
        (1.0, "ai_generated", "high"),
        (0.9, "ai_generated", "high"),
        (0.8999, "ai_generated", "medium"),
        (0.7, "ai_generated", "medium"),
        (0.6999, "ai_generated", "low"),
        (0.6, "ai_generated", "low"),
        (0.5999, "real", "low"),
        (0.25, "real", "medium"),
        (0.125, "real", "medium"),
        (0.0625, "real", "high"),
    ],
)
def test_each_limit_belongs_to_the_upper_side(probability: float, prediction: str, confidence: str) -> None:
    found = RULE.verdict(probability)
    assert (found.prediction, found.probability, found.confidence) == (prediction, probability, confidence)


def test_a_logit_is_decided_by_its_probability() -> None:
    assert RULE.decide(7.0) == RULE.verdict(float(RULE.probabilities(7.0)))
    assert RULE.decide(-9.0) == Verdict("real", float(RULE.probabilities(-9.0)), "high")
