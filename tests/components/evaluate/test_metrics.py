"""Figures agree with scikit-learn and torchmetrics on random data, ties and weights included."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.evaluate.config import EvaluateConfig
from components.evaluate.metrics import (
    Judged,
    Ranking,
    bands,
    counted,
    precision_recall_points,
    ranked,
    reliability,
    roc_points,
    score_set,
    score_unseen,
)
from components.evaluate.slices import Group
from serving.detector.decision import DecisionRule

CONFIG = EvaluateConfig(bootstrap_draws=400)
RULE = DecisionRule()


def judged(seed: int, n: int = 300, step: float = 0.25, shift: float = 1.0, rule: DecisionRule = RULE) -> Judged:
    """Random labels and logits on a coarse grid, so that many are equal."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = True, False
    logits = np.round(rng.normal(np.where(positive, shift, -shift), 1.5) / step) * step
    return Judged.of(positive, logits, rule)


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.5, 2.0]), st.floats(-0.5, 2.0))
@settings(max_examples=40)
def test_score_figures_equal_scikit_learn(seed: int, step: float, shift: float) -> None:
    from sklearn import metrics as reference

    data = judged(seed, step=step, shift=shift)
    found = Ranking(data, 15).figures(np.ones((1, 300)))
    y, p = data.positive, data.probabilities
    order = Ranking(data, 15).order
    assert found["roc_auc"][0] == pytest.approx(reference.roc_auc_score(y, p))
    assert found["pr_auc"][0] == pytest.approx(reference.average_precision_score(y, p))
    assert found["brier"][0] == pytest.approx(reference.brier_score_loss(y, p))
    assert found["f1"][0] == pytest.approx(reference.f1_score(y, data.predicted, zero_division=0))
    fpr, tpr, _ = reference.roc_curve(y, p, drop_intermediate=False)
    assert found["tpr_at_1pct_fpr"][0] == pytest.approx(tpr[fpr <= 0.01].max())
    assert sorted(order.tolist()) == list(range(300))


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_weights_mean_repetition(seed: int) -> None:
    from sklearn import metrics as reference

    data = judged(seed, 60)
    ranking = Ranking(data, 10)
    weights = np.random.default_rng(seed).integers(0, 4, 60).astype(float)
    y, p = ranking.y, ranking.p
    assume(weights[y].sum() and weights[~y].sum())
    found = ranking.figures(weights[None])
    assert found["roc_auc"][0] == pytest.approx(reference.roc_auc_score(y, p, sample_weight=weights))
    assert found["pr_auc"][0] == pytest.approx(reference.average_precision_score(y, p, sample_weight=weights))
    assert found["brier"][0] == pytest.approx(np.average(np.square(p - y), weights=weights))


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_figures_equal_torchmetrics(seed: int) -> None:
    import torch
    from torchmetrics.functional import classification as torchmetrics

    data = judged(seed, step=0.05)
    y, p = torch.from_numpy(data.positive.astype(np.int64)), torch.from_numpy(data.probabilities)
    found = Ranking(data, 15).figures(np.ones((1, 300)))
    shares = counted(data)
    assert found["roc_auc"][0] == pytest.approx(float(torchmetrics.binary_auroc(p, y)), abs=1e-6)
    # verdicts, not probabilities: to torchmetrics a score equal to its threshold is negative, to the rule it is not
    p = torch.from_numpy(data.predicted.astype(np.int64))
    assert found["f1"][0] == pytest.approx(float(torchmetrics.binary_f1_score(p, y)), abs=1e-6)
    assert shares["accuracy"].value == pytest.approx(float(torchmetrics.binary_accuracy(p, y)), abs=1e-6)
    assert shares["precision"].value == pytest.approx(float(torchmetrics.binary_precision(p, y)), abs=1e-6)
    assert shares["recall"].value == pytest.approx(float(torchmetrics.binary_recall(p, y)), abs=1e-6)
    assert 1 - shares["fpr"].value == pytest.approx(float(torchmetrics.binary_specificity(p, y)), abs=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 20))
@settings(max_examples=25)
def test_calibration_bins_hold_every_image_and_give_the_error(seed: int, bins: int) -> None:
    data = judged(seed, 200)
    ranking = Ranking(data, bins)
    found = reliability(ranking)
    assert sum(b.n for b in found) == 200
    assert len(found) <= bins
    assert [b.mean_probability for b in found] == sorted(b.mean_probability for b in found)
    by_hand = sum(b.n * abs(b.mean_probability - b.observed) for b in found) / 200
    assert ranking.figures(np.ones((1, 200)))["ece"][0] == pytest.approx(by_hand)


def test_bins_of_distinct_scores_have_equal_size() -> None:
    data = judged(3, 300, step=1e-9)
    assert {b.n for b in reliability(Ranking(data, 15))} == {20}


def test_every_figure_lies_in_its_interval_and_the_confusion_sums_up() -> None:
    found = score_set(judged(1), [], CONFIG)
    assert set(found.metrics) == {
        *("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc"),
        *("tpr_at_1pct_fpr", "fpr", "fnr", "ece", "brier"),
    }
    for name, metric in found.metrics.items():
        assert metric.low is not None, name
        assert metric.high is not None, name
        assert metric.low <= metric.value <= metric.high, name
        assert metric.high - metric.low < 0.5, name
    c = found.confusion
    assert c.true_real + c.false_ai + c.false_real + c.true_ai == found.n == 300


def test_the_bootstrap_is_as_wide_as_theory_says() -> None:
    # Hanley and McNeil (1982) give the standard error of an AUC
    data = judged(5, 2000, step=1e-6)
    metric = ranked(Ranking(data, 15), EvaluateConfig(bootstrap_draws=2000))["roc_auc"]
    auc, m, n = metric.value, int(data.positive.sum()), int((~data.positive).sum())
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = np.sqrt((auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / (m * n))
    assert metric.low is not None
    assert metric.high is not None
    assert (metric.high - metric.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.15)


def test_equal_seeds_give_equal_intervals() -> None:
    assert score_set(judged(2), [], CONFIG) == score_set(judged(2), [], CONFIG)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_inverted_scores_mirror_the_figures(seed: int) -> None:
    data = judged(seed, step=1e-9)
    mirrored = Judged.of(data.positive, -data.logits, RULE)
    a, b = Ranking(data, 15).figures(np.ones((1, 300))), Ranking(mirrored, 15).figures(np.ones((1, 300)))
    assert a["roc_auc"][0] == pytest.approx(1 - b["roc_auc"][0])
    first, second = counted(data), counted(mirrored)
    assert first["accuracy"].value == pytest.approx(1 - second["accuracy"].value)


def test_a_model_that_never_says_ai_has_no_precision_and_f1_zero() -> None:
    data = Judged.of(np.array([True, False, True]), np.array([-5.0, -5.0, -4.0]), RULE)
    found = score_set(data, [], CONFIG).metrics
    assert found["precision"].value == found["f1"].value == found["recall"].value == 0.0
    assert found["precision"].low is None


def test_one_class_has_only_figures_of_that_class() -> None:
    data = Judged.of(np.array([True] * 8), np.linspace(-1, 3, 8), RULE)
    found = score_set(data, [], CONFIG)
    assert set(found.metrics) == {"accuracy", "recall", "fnr", "brier"}
    assert found.roc == []
    assert found.ece_noise_floor is None


def test_unseen_generators_are_ranked_against_the_real_test_images() -> None:
    from sklearn import metrics as reference

    test = judged(1)
    unseen = Judged.of(np.array([True] * 50), np.linspace(-2, 4, 50), RULE)
    found = score_unseen(unseen, test, [], CONFIG)
    real = test.probabilities[~test.positive]
    expected = reference.roc_auc_score(np.r_[np.zeros(len(real)), np.ones(50)], np.r_[real, unseen.probabilities])
    assert found.n == 50
    assert found.metrics["roc_auc"].value == pytest.approx(expected)
    assert found.metrics["recall"].value == pytest.approx(np.mean(unseen.predicted))
    assert "precision" not in found.metrics


def test_unseen_images_of_the_photographs_of_the_test_split_are_no_new_witnesses() -> None:
    rng = np.random.default_rng(5)
    level = np.repeat(rng.normal(0, 2, 20), 10)
    test = Judged.of(np.zeros(200, dtype=bool), level - 1, RULE, np.repeat(np.arange(20), 10))
    widths = []
    for units in (np.repeat(np.arange(20), 10), np.arange(200) + 20):
        unseen = Judged.of(np.ones(200, dtype=bool), level + 1, RULE, units)
        auc = score_unseen(unseen, test, [], CONFIG).metrics["roc_auc"]
        assert auc.low is not None
        assert auc.high is not None
        widths.append(auc.high - auc.low)
    # where both classes of a photograph are drawn together, what it does to both cancels; as if apart, it does not
    assert widths[0] < 0.9 * widths[1]


def test_unseen_images_of_both_classes_stand_alone() -> None:
    assert score_unseen(judged(2), judged(1), [], CONFIG) == score_set(judged(2), [], CONFIG)


def test_unseen_real_images_alone_have_a_false_positive_rate() -> None:
    unseen = Judged.of(np.zeros(6, dtype=bool), np.linspace(-2, 1, 6), RULE)
    assert set(score_unseen(unseen, judged(1), [], CONFIG).metrics) == {"accuracy", "fpr", "brier"}


def test_the_shipped_threshold_decides_not_one_half() -> None:
    from sklearn import metrics as reference

    strict = judged(1, rule=DecisionRule(threshold=0.9))
    assert strict.predicted.sum() == (strict.probabilities >= 0.9).sum()
    found = score_set(strict, [], CONFIG).metrics
    assert found["f1"].value == pytest.approx(reference.f1_score(strict.positive, strict.probabilities >= 0.9))
    assert found["fpr"].value < score_set(judged(1), [], CONFIG).metrics["fpr"].value


def test_confidence_bands_count_the_verdicts_of_the_one_rule() -> None:
    data = judged(1)
    found = bands(data)
    of_predicted = np.where(data.predicted, data.probabilities, 1 - data.probabilities)
    assert found["high"].n == (of_predicted >= RULE.high_confidence).sum()
    assert sum(band.n for band in found.values()) == 300
    high = of_predicted >= RULE.high_confidence
    assert found["high"].accuracy is not None
    assert found["high"].accuracy.value == pytest.approx(data.right[high].mean())


def test_an_empty_band_has_no_accuracy() -> None:
    assert bands(Judged.of(np.array([True, False]), np.array([9.0, -9.0]), RULE))["low"].accuracy is None


def test_roc_points_are_finite_thinned_and_run_from_corner_to_corner() -> None:
    points = roc_points(Ranking(judged(1, 5000, step=1e-9), 15))
    assert len(points) == 200
    assert points[0] == (0.0, 0.0, 1.0)
    assert points[-1][:2] == (1.0, 1.0)
    assert np.isfinite(points).all()
    thresholds = [t for _, _, t in points]
    assert thresholds == sorted(thresholds, reverse=True)
    assert all(a <= b for i in (0, 1) for a, b in zip([p[i] for p in points], [p[i] for p in points[1:]], strict=False))


def test_precision_recall_points_are_those_of_scikit_learn() -> None:
    from sklearn import metrics as reference

    data = judged(4, 150)
    recall, precision = precision_recall_points(Ranking(data, 15))
    expected = reference.precision_recall_curve(data.positive, data.probabilities)
    known = {(round(r, 9), round(p, 9)) for p, r in zip(expected[0], expected[1], strict=True)}
    assert {(round(r, 9), round(p, 9)) for r, p in zip(recall.tolist(), precision.tolist(), strict=True)} <= known


def test_the_noise_floor_is_what_calibrated_models_show() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        p = rng.uniform(0.02, 0.98, 1000)
        data = Judged.of(rng.random(1000) < p, np.log(p / (1 - p)), RULE)
        errors.append(Ranking(data, 15).figures(np.ones((1, 1000)))["ece"][0])
    floor = score_set(data, [], CONFIG).ece_noise_floor
    assert floor == pytest.approx(np.percentile(errors, 95), rel=0.12)


def test_slices_are_scored_on_their_rows() -> None:
    data = judged(1)
    rows = np.flatnonzero(~data.positive)
    (part,) = score_set(data, [Group("class", "real", rows)], CONFIG).slices
    assert part.n == len(rows)
    assert part.fpr is not None
    assert part.fpr.value == pytest.approx(1 - part.accuracy.value)
    assert part.fnr is None
