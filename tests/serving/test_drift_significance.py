"""Each test of drift by itself, against SciPy's own laws and against figures worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from serving.drift import significance
from serving.drift.significance import Values


def test_the_largest_gap_is_scipys_and_its_p_value_is_kolmogorovs_law_with_stephens_correction() -> None:
    rng = np.random.default_rng(0)
    continuous = np.sort(rng.normal(0, 1, 900)), rng.normal(0.1, 1.1, (20, 300))
    tied = np.sort(rng.integers(0, 30, 900)).astype(float), rng.integers(0, 30, (20, 300)).astype(float)
    for reference, windows in (continuous, tied):
        ours = significance.kolmogorov_smirnov(reference, windows)
        gaps = np.array([stats.ks_2samp(reference, w, method="asymp").statistic for w in windows])
        root = np.sqrt(300 * 900 / 1200)
        assert np.allclose(ours.distance, gaps)
        assert np.allclose(ours.p_value, stats.kstwobign.sf((root + 0.12 + 0.11 / root) * gaps))


def test_bins_hold_equal_parts_of_the_reference_and_take_their_upper_edge() -> None:
    hundred = np.arange(101.0)
    assert significance.quantile_edges(hundred) == pytest.approx(np.arange(10.0, 100.0, 10.0))
    assert significance.quantile_edges(hundred, 4) == pytest.approx([25.0, 50.0, 75.0])
    assert significance.quantile_edges(np.array([1.0, 1.0, 1.0, 5.0]), 4) == pytest.approx([1.0, 2.0])
    counts = significance.binned(np.array([1.0, 3.0]), np.array([[0.0, 1.0, 2.0, 9.0], [3.0, 3.0, 2.0, 0.0]]))
    assert counts.tolist() == [[2, 1, 1], [1, 3, 0]]


def test_the_stability_index_is_the_smoothed_sum_and_follows_chi_square() -> None:
    found = significance.population_stability(np.array([40, 60]), np.array([[30, 20], [20, 30]]))
    q = np.array([40.5, 60.5]) / 101
    for distance, p_value, window in zip(found.distance, found.p_value, ([30.5, 20.5], [20.5, 30.5]), strict=True):
        p = np.array(window) / 51
        index = float(((p - q) * np.log(p / q)).sum())
        assert distance == pytest.approx(index)
        assert p_value == pytest.approx(stats.chi2.sf(index / (1 / 50 + 1 / 100), 1))
    alone = significance.population_stability(np.array([7]), np.array([[3], [4]]))
    assert alone.distance.tolist() == [0.0, 0.0]
    assert np.isnan(alone.p_value).tolist() == [True, True]


def test_shares_are_compared_as_pearson_does() -> None:
    rng = np.random.default_rng(0)
    counts, windows = np.array([500, 300, 200]), rng.multinomial(250, [0.5, 0.3, 0.2], 20)
    found = significance.homogeneity(counts, windows)
    expected = [stats.chi2_contingency(np.stack([counts, w]), correction=False).pvalue for w in windows]
    assert np.allclose(found.p_value, expected)
    assert np.allclose(found.distance, np.abs(windows / 250 - counts / 1000).sum(axis=1) / 2)


def test_rare_categories_are_one_and_what_is_just_expected_often_enough_is_none_of_them() -> None:
    # a quarter of all is the windows', so 5.0 of the third category are expected of each, and of the last two 3 and 4
    counts = np.array([143, 125, 15, 8, 9])
    windows = np.array([[40, 44, 5, 4, 7], [35, 53, 5, 4, 3]])
    found = significance.homogeneity(counts, windows)
    for p_value, window in zip(found.p_value, windows, strict=True):
        merged = np.array([[*row[:3], row[3] + row[4]] for row in (counts, window)])
        assert p_value == pytest.approx(stats.chi2_contingency(merged, correction=False).pvalue)


@pytest.mark.filterwarnings("error")
def test_one_odd_file_is_no_alarm_and_many_are() -> None:
    reference = np.array([10_000, 0, 0])
    one, many = significance.homogeneity(reference, np.array([[999, 1, 0], [900, 100, 0]])).p_value
    assert np.isnan(one)
    assert many < 1e-12


@pytest.mark.parametrize(
    ("reference", "window", "merged"),
    [
        # expected in the window: 65, 30, 2.5, 2.5: the two rare ones together just reach five
        ([65, 30, 3, 2], [65, 30, 2, 3], [[65, 30, 5], [65, 30, 5]]),
        ([65, 30, 4, 1], [55, 40, 1, 4], [[65, 30, 5], [55, 40, 5]]),
        ([64, 28, 5, 3], [60, 20, 12, 8], [[64, 28, 5, 3], [60, 20, 12, 8]]),
        # 4.5 together: left out, with their degree of freedom
        ([60, 36, 2, 2], [60, 35, 3, 2], None),
        # 2, 1 and 7.5 expected: the last is common, the first two are too few even together
        ([200, 60, 5, 2, 13], [100, 40, 1, 1, 8], None),
        # just five expected is enough to stand alone
        ([80, 15, 5], [80, 15, 5], [[80, 15, 5], [80, 15, 5]]),
    ],
)
def test_rare_kinds_are_judged_together_or_not_at_all(
    reference: list[int], window: list[int], merged: list[list[int]] | None
) -> None:
    p_value = float(significance.homogeneity(np.array(reference), np.array([window])).p_value[0])
    if merged is not None:
        assert p_value == pytest.approx(stats.chi2_contingency(np.array(merged), correction=False).pvalue)
        return
    n, size = sum(window), sum(reference)
    share = n / (n + size)
    cells, kinds = 0.0, 0
    for in_window, in_reference in zip(window, reference, strict=True):
        expected = (in_window + in_reference) * share
        if expected >= 5:
            cells += (in_window - expected) ** 2 / expected
            cells += (in_reference - expected / share * (1 - share)) ** 2 / (expected / share * (1 - share))
            kinds += 1
    assert p_value == pytest.approx(stats.chi2.sf(cells, kinds - 1))


def test_p_values_are_stepped_down_row_by_row() -> None:
    nan = np.nan
    given: Values = np.array([[0.03, 0.01, nan, 0.9, 0.02], [0.4, 0.6, 0.5, 0.7, 0.8], [nan, nan, nan, nan, 0.2]])
    # sorted 0.01 0.02 0.03 0.9 times 4 3 2 1, then never decreasing; the second row: never above 1
    wanted = np.array([[0.06, 0.04, nan, 0.9, 0.06], [1.0, 1.0, 1.0, 1.0, 1.0], [nan, nan, nan, nan, 0.2]])
    assert np.allclose(significance.holm(given), wanted, equal_nan=True)


def test_signals_of_one_thing_are_combined_by_their_half_cauchy_scores() -> None:
    nan = np.nan
    rows = np.array([[0.03, nan], [0.02, 0.3], [0.02, 1.0], [1.0, 1.0], [0.0, 0.5], [nan, nan]])
    found = significance.half_cauchy(rows)
    cot = 1 / np.tan(np.pi * np.array([0.02, 0.3]) / 2)
    assert found[0] == pytest.approx(0.03)
    assert found[1] == pytest.approx(2 / np.pi * np.arctan(1 / cot.mean()))
    # what sees nothing halves the evidence and takes none away
    assert found[2] == pytest.approx(2 / np.pi * np.arctan(2 / cot[0]))
    assert found[3] == pytest.approx(1.0)
    assert 0.0 < found[4] < 1e-250
    assert np.isnan(found[5])


def test_the_smallest_of_a_family_answers_for_it_and_another_must_hold_by_itself() -> None:
    nan = np.nan
    rows = np.array([[0.001, 0.03, 0.2], [0.4, 0.9, nan], [0.02, 0.02, 0.0001], [nan, 0.3, 0.01]])
    found = significance.adjusted_by_family(rows, [(0, 1), (2,)])
    first = significance.half_cauchy(rows[:, :2])
    # two families: the smaller combined value is doubled, the other is not
    assert np.allclose(found[0], [2 * first[0], 0.06, 0.2])
    assert np.allclose(found[1], [first[1], 1.0, nan], equal_nan=True)
    assert np.allclose(found[2], [first[2], first[2], 0.0002])
    assert np.allclose(found[3], [nan, 0.3, 0.02], equal_nan=True)
