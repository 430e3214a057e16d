"""The drift tests hold their level and see what they must see; figures are printed (`pytest -s`)."""

import numpy as np
import pytest
from scipy import stats

from serving.detector.decision import CONFIDENCES, DecisionRule
from serving.detector.labels import LABELS
from serving.detector.statistics import DIGITS, Reference
from serving.drift.diagnosis import diagnose
from serving.drift.signals import FORMATS, SIGNALS, Assessment, Baseline, Floors, Windows, tally

RULE = DecisionRule(temperature=1.2, bias=0.05)
NO_FLOORS = Floors(distance=0.0, psi=0.0)
COUNTS = {"predictions": len(LABELS), "confidences": len(CONFIDENCES), "formats": len(FORMATS)}
QUALITIES = np.array([75.0, 80.0, 85.0, 90.0, 92.0, 95.0])


def draw(
    rng: np.random.Generator, w: int, n: int, *, ai_share: float = 0.5, jpeg_quality: float | None = None
) -> Windows:
    """Healthy shop traffic: bimodal scores, log-normal sizes, five JPEG qualities, some PNG and WebP."""
    ai = rng.random((w, n)) < ai_share
    logits = np.where(ai, 4.0, -4.0) + rng.normal(0, 2.2, (w, n))
    width = np.round(np.exp(rng.normal(6.6, 0.4, (w, n))))
    height = np.maximum(16, np.round(width * np.exp(rng.normal(0, 0.2, (w, n)))))
    formats = rng.choice(3, (w, n), p=[0.85, 0.1, 0.05])
    quality = rng.choice(QUALITIES, (w, n), p=[0.1, 0.2, 0.2, 0.3, 0.1, 0.1])
    if jpeg_quality is not None:
        quality = np.full((w, n), jpeg_quality)
    probabilities = RULE.probabilities(logits)
    of_predicted = np.where(probabilities >= RULE.threshold, probabilities, 1 - probabilities)
    return Windows(
        logits=logits,
        predictions=(probabilities >= RULE.threshold).astype(np.int64),
        confidences=np.where(of_predicted >= 0.8, 0, np.where(of_predicted >= 0.65, 1, 2)),
        numbers={
            "min_side": np.log2(np.minimum(width, height)),
            "megapixels": np.log2(width * height / 1e6),
            "aspect": np.log2(width / height),
            "jpeg_quality": quality,
        },
        formats=formats,
    )


def reference_of(window: Windows) -> Reference:
    """The reference training would write for these images."""
    shares = {name: tally(getattr(window, name), k)[0].tolist() for name, k in COUNTS.items()}
    return Reference(
        n=window.logits.shape[1],
        logits=window.logits[0].round(DIGITS).tolist(),
        prediction_counts=dict(zip(LABELS, shares["predictions"], strict=True)),
        confidence_counts=dict(zip(CONFIDENCES, shares["confidences"], strict=True)),
        mean_probability=float(RULE.probabilities(window.logits).mean()),
        log2_min_side=window.numbers["min_side"][0].round(DIGITS).tolist(),
        log2_megapixels=window.numbers["megapixels"][0].round(DIGITS).tolist(),
        log2_aspect=window.numbers["aspect"][0].round(DIGITS).tolist(),
        jpeg_quality=window.numbers["jpeg_quality"][0].round(DIGITS).tolist(),
        format_counts=dict(zip(FORMATS, shares["formats"], strict=True)),
    )


def baseline(rng: np.random.Generator, size: int) -> Baseline:
    return Baseline(reference_of(draw(rng, 1, size)), RULE)


def simulate(seed: int, references: int, windows_each: int, n: int, size: int) -> Assessment:
    """Healthy windows, each reference drawn afresh: the level holds over references, not for one lucky draw."""
    rng = np.random.default_rng(seed)
    parts = [baseline(rng, size).assess(draw(rng, windows_each, n)) for _ in range(references)]
    return Assessment(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("distances", "p_values", "adjusted")))


@pytest.mark.system  # five seconds; the shipped level stays among the quick tests
def test_at_alpha_5_percent_healthy_windows_alarm_about_1_in_20() -> None:
    found = simulate(seed=7, references=500, windows_each=1, n=1000, size=4000)
    alarms = int(found.moved(0.05, NO_FLOORS).any(axis=1).sum())
    low, high = stats.binom.interval(0.95, len(found.adjusted), 0.05)
    print(
        f"\nalpha 0.05: {alarms} alarms in {len(found.adjusted):,} healthy windows (95 % interval {low:.0f}-{high:.0f})"
    )
    assert low <= alarms <= high


def test_at_the_shipped_level_false_alarms_stay_within_its_interval() -> None:
    found = simulate(seed=11, references=500, windows_each=10, n=500, size=2000)
    windows = len(found.adjusted)
    alarms = int(found.moved(0.001, Floors()).any(axis=1).sum())
    low, high = stats.binom.interval(0.95, windows, 0.001)
    print(f"\nshipped level 0.001: {alarms} alarms in {windows:,} healthy windows (95 % interval {low:.0f}-{high:.0f})")
    assert low <= alarms <= high


@pytest.mark.parametrize(
    ("name", "change"),
    [("class share 50 % -> 40 %", {"ai_share": 0.4}), ("JPEG q90 -> q50", {"jpeg_quality": 50.0})],
)
def test_power_at_the_shipped_level(name: str, change: dict[str, float]) -> None:
    rng = np.random.default_rng(3)
    found = baseline(rng, 10_000).assess(draw(rng, 300, 1000, **change))
    power = found.moved(0.001, Floors()).any(axis=1).mean()
    print(f"\npower for {name} at n=1,000: {power:.3f} over 300 windows")
    assert power >= 0.9


def test_each_test_alone_holds_its_level() -> None:
    found = simulate(seed=5, references=500, windows_each=4, n=500, size=3000)
    for i, signal in enumerate(SIGNALS):
        p = found.p_values[:, i]
        assert not np.isnan(p).any(), signal
        # four standard errors around 5 %, and a little below for tests of discrete counts
        assert 0.025 <= (p <= 0.05).mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(p)), signal


def test_a_constant_signal_is_not_tested_until_it_changes() -> None:
    rng = np.random.default_rng(2)
    window = draw(rng, 1, 2000)
    window.numbers["min_side"][:] = np.log2(640)  # not representable in the reference's five decimals
    constant = Baseline(reference_of(window), RULE)
    same, other = draw(rng, 1, 1000), draw(rng, 1, 1000)
    same.numbers["min_side"][:] = np.log2(640)
    other.numbers["min_side"][:] = np.log2(641)
    side = list(SIGNALS).index("min_side")
    assert np.isnan(constant.assess(same).p_values[0, side])
    assert constant.assess(other).moved(0.001, Floors())[0, side]


def test_files_without_a_jpeg_quality_do_not_hide_those_with_one() -> None:
    rng = np.random.default_rng(4)
    base = baseline(rng, 4000)
    windows = draw(rng, 2, 1000, jpeg_quality=50.0)
    windows.numbers["jpeg_quality"][0, ::2] = np.nan
    windows.numbers["jpeg_quality"][1, :] = np.nan
    at = list(SIGNALS).index("jpeg_quality")
    found = base.assess(windows)
    assert found.moved(0.001, Floors())[0, at]
    assert np.isnan(found.p_values[1, at])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jpeg_quality": 50.0}, "ingestion change"),
        ({"ai_share": 0.25}, "class mix moved"),
        ({}, ""),
    ],
)
def test_the_diagnosis_names_the_likely_cause(change: dict[str, float], words: str) -> None:
    rng = np.random.default_rng(9)
    base, window = baseline(rng, 10_000), draw(rng, 1, 1000, **change)
    moved = [s for s, flag in zip(SIGNALS, base.assess(window).moved(0.001, Floors())[0], strict=True) if flag]
    assert words in diagnose(moved, base, window)


def test_scores_that_shift_inside_their_class_point_to_new_content() -> None:
    rng = np.random.default_rng(10)
    base, window = baseline(rng, 10_000), draw(rng, 1, 1000)
    shifted = Windows(window.logits + 0.9, window.predictions, window.confidences, window.numbers, window.formats)
    moved = [s for s, flag in zip(SIGNALS, base.assess(shifted).moved(0.001, Floors())[0], strict=True) if flag]
    assert "score_ks" in moved
    assert "new generator or new content" in diagnose(moved, base, shifted)
