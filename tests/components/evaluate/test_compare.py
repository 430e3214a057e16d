"""Paired comparison: exact, antisymmetric, and equal to resampling whole images."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.evaluate.compare import compare, mcnemar_exact, paired_accuracy, paired_f1
from components.evaluate.config import EvaluateConfig
from components.evaluate.metrics import Judged
from components.evaluate.slices import Group
from serving.detector.decision import DecisionRule

CONFIG = EvaluateConfig(bootstrap_draws=200, paired_draws=4000)


def pair(seed: int, n: int = 400, better: float = 0.0) -> tuple[Judged, Judged]:
    """Two models whose scores agree in part; the first is `better` by so much in logits."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    positive[:2] = True, False
    sign = np.where(positive, 1.0, -1.0)
    shared = rng.normal(0, 1, n)
    logits = [sign * (1.0 + bonus) + shared + rng.normal(0, 0.7, n) for bonus in (better, 0.0)]
    first, second = (Judged.of(positive, logit, DecisionRule()) for logit in logits)
    return first, second


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    n = a + b
    by_hand = min(1.0, 2 * sum(comb(n, k) for k in range(min(a, b) + 1)) / 2**n)
    images = np.array([1] * a + [-1] * b + [0] * 5)
    assert mcnemar_exact(images) == pytest.approx(by_hand)
    assert mcnemar_exact(images) == pytest.approx(mcnemar_exact(-images))


@given(st.lists(st.integers(-4, 4), max_size=10))
def test_mcnemar_of_units_counts_every_way_their_differences_could_fall(differences: list[int]) -> None:
    falls = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    by_hand = np.mean([abs(fall) >= abs(sum(differences)) for fall in falls])
    assert mcnemar_exact(np.array(differences, dtype=np.int64)) == pytest.approx(by_hand)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_differences_are_exact_antisymmetric_and_in_their_intervals(seed: int) -> None:
    from sklearn.metrics import f1_score

    first, second = pair(seed, 150, better=0.2)
    accuracy, f1 = paired_accuracy(first, second, CONFIG), paired_f1(first, second, CONFIG)
    assert accuracy.value == pytest.approx(first.right.mean() - second.right.mean())
    y = first.positive
    assert f1.value == pytest.approx(f1_score(y, first.predicted) - f1_score(y, second.predicted))
    assert paired_accuracy(second, first, CONFIG).value == pytest.approx(-accuracy.value)
    for metric in (accuracy, f1):
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= metric.value <= metric.high


def test_drawing_tables_is_drawing_images() -> None:
    first, second = pair(3, 400, better=0.3)
    metric = paired_accuracy(first, second, CONFIG)
    rng = np.random.default_rng(1)
    gain = first.right.astype(int) - second.right.astype(int)
    classes = [np.flatnonzero(first.positive), np.flatnonzero(~first.positive)]
    draws = [np.concatenate([gain[rng.choice(rows, len(rows))] for rows in classes]).mean() for _ in range(4000)]
    assert (metric.low, metric.high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.006)


def test_a_model_beside_itself_differs_by_nothing() -> None:
    first, _ = pair(0)
    parts = [Group("class", "real", np.flatnonzero(~first.positive))]
    found = compare(first, first, parts, CONFIG, champion_version="3", identical=True)
    assert found.identical
    assert found.mcnemar_p == 1.0
    assert found.only_candidate_right == found.only_champion_right == 0
    for metric in (found.accuracy_difference, found.f1_difference, found.slice_differences["class=real"]):
        assert (metric.low, metric.value, metric.high) == (0.0, 0.0, 0.0)


def test_a_clearly_better_model_is_seen_and_a_clearly_worse_one_too() -> None:
    first, second = pair(1, 2000, better=1.0)
    better = compare(first, second, [], CONFIG, champion_version="3", identical=False)
    worse = compare(second, first, [], CONFIG, champion_version="3", identical=False)
    assert better.accuracy_difference.low is not None
    assert worse.accuracy_difference.high is not None
    assert better.accuracy_difference.low > 0 > worse.accuracy_difference.high
    assert better.mcnemar_p < 1e-6
    assert better.only_candidate_right == worse.only_champion_right


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        positive = np.arange(300) < 150
        only_first, only_second = rng.random(300) < 0.10, rng.random(300) < 0.06
        right = ~(only_first | only_second)
        said = [np.where(ok, positive, ~positive) for ok in (right | only_first, right | only_second)]
        first, second = (Judged.of(positive, np.where(s, 3.0, -3.0), DecisionRule()) for s in said)
        truth = 0.10 * (1 - 0.06) - 0.06 * (1 - 0.10)
        metric = paired_accuracy(first, second, EvaluateConfig(paired_draws=400))
        assert metric.low is not None
        assert metric.high is not None
        covered += metric.low <= truth <= metric.high
    assert 0.91 < covered / 300 < 0.99


def test_copies_make_no_difference_surer() -> None:
    first, second = pair(4, n=300, better=0.4)
    rows = np.tile(np.arange(300), 10)
    for figure in (paired_accuracy, paired_f1):
        once = figure(first, second, CONFIG)
        often = figure(first.take(rows), second.take(rows), CONFIG)
        assert often.value == pytest.approx(once.value)
        assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.006)


def test_copies_make_no_test_surer() -> None:
    first, second = pair(4, n=300, better=0.4)
    rows = np.tile(np.arange(300), 10)
    once = compare(first, second, [], CONFIG, champion_version="3", identical=False)
    often = compare(first.take(rows), second.take(rows), [], CONFIG, champion_version="3", identical=False)
    assert often.mcnemar_p == pytest.approx(once.mcnemar_p)
    assert often.only_candidate_right == 10 * once.only_candidate_right
    assert once.champion.units == often.champion.units == 300
