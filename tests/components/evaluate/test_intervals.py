"""Intervals hold their point, agree with scipy, and cover what they promise."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from components.evaluate.intervals import interval, proportion, stratified_counts, wilson, worth_of

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_equals_scipy_and_holds_the_point(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    reference = binomtest(successes, n).proportion_ci(method="wilson")
    assert low == pytest.approx(reference.low, abs=1e-9)
    assert high == pytest.approx(reference.high, abs=1e-9)
    assert 0.0 <= low <= successes / n <= high <= 1.0


@given(counts)
def test_wilson_of_the_failures_is_its_mirror(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_proportion_of_nothing_is_undefined() -> None:
    assert proportion(np.zeros(0, dtype=bool), np.arange(0)) is None


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 50), st.integers(0, 9))
def test_every_draw_keeps_the_class_sizes(labels: list[bool], draws: int, seed: int) -> None:
    positive = np.array(labels)
    drawn = np.concatenate(
        list(stratified_counts(positive, np.arange(len(positive)), draws, np.random.default_rng(seed)))
    )
    assert drawn.shape == (draws, len(labels))
    assert (drawn >= 0).all()
    assert (drawn[:, positive].sum(axis=1) == positive.sum()).all()
    assert (drawn[:, ~positive].sum(axis=1) == (~positive).sum()).all()


def test_draws_come_in_chunks_that_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.evaluate.intervals.CHUNK_CELLS", 30)
    chunks = list(stratified_counts(np.array([True, False] * 5), np.arange(10), 7, np.random.default_rng(0)))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]


def test_each_image_is_drawn_once_on_average() -> None:
    positive = np.arange(40) < 10
    drawn = np.concatenate(list(stratified_counts(positive, np.arange(40), 4000, np.random.default_rng(0))))
    # the standard error of each mean is below 1 / sqrt(4000) = 0.016
    assert np.abs(drawn.mean(axis=0) - 1.0).max() < 0.08


@given(st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=2, max_size=50), st.booleans())
def test_an_interval_holds_its_point(point: float, draws: list[float], centred: bool) -> None:
    metric = interval(point, np.array(draws), centred=centred)
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low <= metric.value <= metric.high


def test_a_centred_interval_takes_the_bias_off() -> None:
    draws = np.random.default_rng(0).normal(0.05, 0.001, 4000)
    metric = interval(0.02, draws, centred=True)
    assert (metric.low, metric.high) == pytest.approx((0.018, 0.022), abs=5e-4)


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    drawn = rng.binomial(400, 0.9, 2000)
    covered = np.mean([low <= 0.9 <= high for low, high in (wilson(int(k), 400) for k in drawn)])
    assert 0.93 < covered < 0.97


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.randoms(use_true_random=False))
def test_a_share_is_worth_no_more_than_its_images_and_no_less_than_one(hits: list[bool], chance: Random) -> None:
    units = np.array([chance.randrange(len(hits)) for _ in hits])
    worth = worth_of(np.array(hits), units)
    assert 1.0 <= worth <= len(hits)
    assert worth_of(np.array(hits), np.arange(len(hits))) == len(hits)
    metric = proportion(np.array(hits), units)
    assert metric is not None and metric.low is not None and metric.high is not None
    assert 0.0 <= metric.low <= metric.value <= metric.high <= 1.0


def test_copies_add_nothing() -> None:
    rng = np.random.default_rng(3)
    hits, units = rng.random(200) < 0.9, np.arange(200)
    once = proportion(hits, units)
    often = proportion(np.tile(hits, 30), np.tile(units, 30))
    assert once is not None and often is not None
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.003)
    # one picture of each class, sixty times: two right answers, not a hundred and twenty
    two = proportion(np.ones(120, dtype=bool), np.repeat([0, 1], 60))
    assert two is not None
    assert two.low == pytest.approx(wilson(2, 2)[0])


def test_intervals_by_photograph_cover_the_truth_where_those_by_image_do_not() -> None:
    rng = np.random.default_rng(11)
    units = np.repeat(np.arange(60), 10)
    by_unit = by_image = 0
    for _ in range(400):
        # photographs differ in how hard they are: correlation within one is 1 / (1 + 4 + 0.5)
        hits = rng.random(600) < np.repeat(rng.beta(4.0, 0.5, 60), 10)
        for found, which in ((proportion(hits, units), 0), (proportion(hits, np.arange(600)), 1)):
            assert found is not None and found.low is not None and found.high is not None
            inside = found.low <= 4.0 / 4.5 <= found.high
            by_unit, by_image = by_unit + (inside and not which), by_image + (inside and which)
    assert by_unit / 400 > 0.92
    assert by_image / 400 < 0.85


def test_draws_keep_units_together() -> None:
    positive = np.array([True, False, True, True, False, False, True, False])
    units = np.array([5, 5, 7, 7, 9, 9, 2, 3])
    drawn = np.concatenate(list(stratified_counts(positive, units, 200, np.random.default_rng(1))))
    for unit in np.unique(units):
        assert (drawn[:, units == unit] == drawn[:, units == unit][:, :1]).all()
    assert drawn[:, 2].std() > 0
