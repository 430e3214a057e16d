"""The judgement, branch by branch, and what holds for every evaluation."""

from math import nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.artifacts.evaluation import Metric
from components.quality_gate.config import GateConfig
from components.quality_gate.policy import judge
from tests.components.quality_gate.evaluations import cell, check, evaluation, metric, names, part, scores

SHARE = st.floats(0.0, 1.0)


def test_a_good_model_passes_and_the_headline_says_how_good() -> None:
    verdict = judge(evaluation(), GateConfig())
    assert verdict.passed
    assert verdict.headline == "PASSED: accuracy 94.0 %, F1 93.0 % on 2,000 test images"
    assert names(verdict) == ["accuracy", "f1", "test_images"]
    assert check(verdict, "accuracy").sentence == "accuracy 94.0 % (at least 85 %), 95 % CI 92.0-96.0"
    assert (verdict.run_id, verdict.bundle_digest) == ("run-1", "d" * 64)
    assert verdict.notes == ["No champion yet."]


def test_low_accuracy_refuses_though_f1_passes_and_the_other_way_round() -> None:
    low_accuracy = judge(evaluation(scores(accuracy=metric(0.849))), GateConfig())
    assert not low_accuracy.passed
    assert low_accuracy.headline == "REFUSED: accuracy 84.9 % (at least 85 %), 95 % CI 82.9-86.9"
    assert check(low_accuracy, "f1").outcome == "passed"
    low_f1 = judge(evaluation(scores(f1=metric(0.79))), GateConfig())
    assert not low_f1.passed
    assert low_f1.headline.startswith("REFUSED: F1 79.0 % (at least 80 %)")
    assert check(low_f1, "accuracy").outcome == "passed"


@given(accuracy=SHARE, f1=SHARE, floor_accuracy=SHARE, floor_f1=SHARE)
def test_accuracy_and_f1_are_both_enforced_whatever_they_are(
    accuracy: float, f1: float, floor_accuracy: float, floor_f1: float
) -> None:
    judged = evaluation(scores(accuracy=metric(accuracy), f1=metric(f1)))
    verdict = judge(judged, GateConfig(min_accuracy=floor_accuracy, min_f1=floor_f1))
    assert verdict.passed == (accuracy >= floor_accuracy and f1 >= floor_f1)
    assert verdict.headline.startswith("PASSED: " if verdict.passed else "REFUSED: ")


@given(accuracy=SHARE, f1=SHARE, floor=SHARE, higher=SHARE, half=st.floats(0.0, 0.2))
def test_a_stricter_policy_never_passes_more(
    accuracy: float, f1: float, floor: float, higher: float, half: float
) -> None:
    judged = evaluation(scores(accuracy=metric(accuracy, half), f1=metric(f1, half)))
    mild, strict = sorted((floor, higher))
    passed = [
        judge(judged, GateConfig(min_accuracy=limit, min_f1=limit, use_lower_bound=bound)).passed
        for limit, bound in ((mild, False), (strict, False), (strict, True))
    ]
    assert passed == sorted(passed, reverse=True)


@pytest.mark.parametrize("check_name", ["accuracy", "f1", "nonsense"])
def test_accuracy_and_f1_cannot_be_switched_off(check_name: str) -> None:
    with pytest.raises(ValidationError, match="report_only"):
        GateConfig(report_only=(check_name,))
    with pytest.raises(ValidationError):
        GateConfig(min_accuracy=None)


def test_the_lower_bound_can_be_what_counts() -> None:
    judged = evaluation(scores(accuracy=metric(0.86)))
    assert judge(judged, GateConfig()).passed
    strict = judge(judged, GateConfig(use_lower_bound=True))
    assert strict.headline == "REFUSED: accuracy 86.0 % (at least 85 % by its interval), 95 % CI 84.0-88.0"
    # a limit from above is held against the upper end
    assert judge(evaluation(), GateConfig(max_fpr=0.06)).passed
    assert not judge(evaluation(), GateConfig(max_fpr=0.06, use_lower_bound=True)).passed
    # and a figure without an interval is held as it is
    assert judge(evaluation(scores(accuracy=Metric(value=0.86))), GateConfig(use_lower_bound=True)).passed


@pytest.mark.parametrize("figure", ["accuracy", "f1", "fpr", "ece"])
@pytest.mark.parametrize("bound", [False, True])
def test_what_is_not_a_number_refuses(figure: str, bound: bool) -> None:
    for broken in (metric(nan), Metric(value=nan, low=0.9, high=0.0), Metric(value=nan)):
        policy = GateConfig(max_fpr=1.0, max_ece=1.0, min_accuracy=0.0, min_f1=0.0, use_lower_bound=bound)
        verdict = judge(evaluation(scores(**dict[str, Any]({figure: broken}))), policy)
        assert not verdict.passed
        assert check(verdict, figure).outcome == "refused"
        assert check(verdict, figure).value is None
        assert "not a number" in verdict.headline


def test_a_missing_figure_refuses() -> None:
    judged = evaluation()
    without = judged.test.model_copy(update={"metrics": {"f1": metric(0.9)}})
    verdict = judge(judged.model_copy(update={"test": without}), GateConfig())
    assert verdict.headline == "REFUSED: accuracy not a number (at least 85 %)"


def test_optional_checks_run_when_their_limit_is_set() -> None:
    judged = evaluation(
        scores(slices=(part("source", "tools", 0.91, fpr=0.091), part("source", "toys", 0.97, fpr=0.01))),
        robustness=[cell("jpeg", "q50", 0.88, 0.07), cell("blur", "sigma 1", 0.80, 0.02)],
        latency_ms=4.0,
        bundle_bytes=17_000_000,
    )
    loose = GateConfig(
        max_fpr=0.06,
        max_ece=0.04,
        min_worst_slice_accuracy=0.9,
        max_worst_slice_fpr=0.1,
        min_worst_corruption_accuracy=0.75,
        max_worst_corruption_fpr=0.1,
        max_latency_ms=5.0,
        max_bundle_mb=20.0,
    )
    verdict = judge(judged, loose)
    assert verdict.passed
    assert names(verdict) == [
        *("accuracy", "f1", "fpr", "ece", "slice_accuracy", "slice_fpr"),
        *("corruption_accuracy", "corruption_fpr", "latency", "size", "test_images"),
    ]
    assert check(verdict, "slice_accuracy").sentence.startswith("accuracy on tools 91.0 %")
    assert check(verdict, "corruption_accuracy").sentence.startswith("accuracy after blur sigma 1 80.0 %")
    assert check(verdict, "corruption_fpr").sentence.startswith("FPR after jpeg q50 7.0 %")
    assert check(verdict, "latency").sentence == "engine time per image 4.00 ms (limit 5 ms)"
    assert check(verdict, "size").sentence == "bundle 17.00 MB (limit 20 MB)"


def test_the_sentence_of_the_contract() -> None:
    fpr = Metric(value=0.091, low=0.068, high=0.12)
    tools = part("source", "tools", 0.91).model_copy(update={"fpr": fpr})
    verdict = judge(evaluation(scores(slices=(tools,))), GateConfig(max_worst_slice_fpr=0.05))
    assert verdict.headline == "REFUSED: FPR on tools 9.1 % (limit 5 %), 95 % CI 6.8-12.0"


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ({"max_fpr": 0.04}, "FPR 5.0 % (limit 4 %)"),
        ({"max_ece": 0.02}, "ECE 3.0 % (limit 2 %)"),
        ({"min_worst_slice_accuracy": 0.9}, "accuracy on gan 80.0 % (at least 90 %)"),
        ({"max_worst_slice_fpr": 0.05}, "FPR on tools 9.0 % (limit 5 %)"),
        ({"min_worst_corruption_accuracy": 0.9}, "accuracy after jpeg q50 85.0 % (at least 90 %)"),
        ({"max_worst_corruption_fpr": 0.1}, "FPR after jpeg q50 30.0 % (limit 10 %)"),
        ({"max_latency_ms": 3}, "engine time per image 4.00 ms (limit 3 ms)"),
        ({"max_bundle_mb": 10}, "bundle 17.00 MB (limit 10 MB)"),
    ],
)
def test_each_limit_refuses_and_can_be_reported_only(limit: dict[str, float], problem: str) -> None:
    judged = evaluation(
        scores(
            slices=(
                part("generator", "gan", 0.8),
                part("source", "tools", 0.93, fpr=0.09),
                part("class", "real", 0.9, fpr=0.5),
            )
        ),
        robustness=[cell("jpeg", "q50", 0.85, 0.3), cell("jpeg", "q95", 0.93, 0.05), cell("blur", "sigma 1", 0.92)],
        latency_ms=4.0,
        bundle_bytes=17_000_000,
    )
    verdict = judge(judged, GateConfig.model_validate(limit))
    assert verdict.headline.startswith(f"REFUSED: {problem}")
    (name,) = [c.name for c in verdict.checks if c.outcome == "refused"]
    relaxed = judge(judged, GateConfig.model_validate(limit | {"report_only": [name]}))
    assert relaxed.passed
    assert check(relaxed, name).outcome == "reported"
    assert not check(relaxed, name).enforced
    assert check(relaxed, name).sentence == check(verdict, name).sentence


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ({"min_worst_slice_accuracy": 0.5}, "accuracy on any part not a number"),
        ({"max_worst_slice_fpr": 0.5}, "FPR on any part not a number"),
        ({"min_worst_corruption_accuracy": 0.5}, "accuracy after any part not a number"),
        ({"max_latency_ms": 50}, "engine time per image was not measured (limit 50 ms)"),
    ],
)
def test_a_limit_on_what_was_not_measured_refuses(limit: dict[str, float], problem: str) -> None:
    verdict = judge(evaluation(), GateConfig.model_validate(limit))
    assert verdict.headline.startswith(f"REFUSED: {problem}")


def test_the_worst_slice_is_the_one_that_is_not_a_number() -> None:
    broken = part("source", "x", 0.9).model_copy(update={"accuracy": Metric(value=nan)})
    verdict = judge(
        evaluation(scores(slices=(part("source", "y", 0.1), broken))), GateConfig(min_worst_slice_accuracy=0.0)
    )
    assert "accuracy on x not a number" in verdict.headline


def test_by_the_lower_bound_the_refused_slice_is_named_before_a_lower_one() -> None:
    wide = part("source", "few", 0.90).model_copy(update={"accuracy": metric(0.90, 0.10)})
    narrow = part("source", "many", 0.89).model_copy(update={"accuracy": metric(0.89, 0.01)})
    policy = GateConfig(min_worst_slice_accuracy=0.85, use_lower_bound=True)
    verdict = judge(evaluation(scores(slices=(narrow, wide))), policy)
    assert "accuracy on few" in verdict.headline


def test_small_slices_are_not_judged() -> None:
    tiny = part("source", "tiny", 0.1, n=49)
    policy = GateConfig(min_worst_slice_accuracy=0.8)
    assert not judge(evaluation(scores(slices=(part("source", "tiny", 0.1, n=50),))), policy).passed
    assert judge(evaluation(scores(slices=(tiny, part("class", "real", 0.9)))), policy).passed


def test_a_value_that_rounds_to_its_limit_shows_enough_digits() -> None:
    verdict = judge(evaluation(scores(accuracy=metric(0.84996))), GateConfig())
    assert verdict.headline.startswith("REFUSED: accuracy 84.996 % (at least 85 %)")
    hair = judge(evaluation(scores(accuracy=metric(0.85 - 1e-12))), GateConfig())
    assert hair.headline.startswith("REFUSED: accuracy 85.0000 %")
    equal = judge(evaluation(scores(accuracy=metric(0.85))), GateConfig())
    assert equal.passed


def test_many_reasons_are_counted_not_listed() -> None:
    verdict = judge(
        evaluation(scores(accuracy=metric(0.1), f1=metric(0.1), fpr=metric(0.9), ece=metric(0.9))),
        GateConfig(max_fpr=0.1, max_ece=0.1, max_latency_ms=1),
    )
    assert verdict.headline.count(";") == 3
    assert verdict.headline.endswith("; and 2 more")


def test_too_few_test_images_refuse() -> None:
    verdict = judge(evaluation(scores(n=999)), GateConfig())
    assert not verdict.passed
    assert verdict.headline == "REFUSED: 999 different test images (at least 1,000)"
    assert any("small: accuracy is known only to lie between 92.0 % and 96.0 %." in note for note in verdict.notes)
    for passing in (
        judge(evaluation(scores(n=1000)), GateConfig()),
        judge(evaluation(scores(n=999)), GateConfig(min_test_images=999)),
        judge(evaluation(scores(n=999)), GateConfig(report_only=("test_images",))),
    ):
        assert passing.passed
    bare = judge(evaluation(scores(n=120, accuracy=Metric(value=0.9))), GateConfig())
    assert not any("small" in note for note in bare.notes)


def test_copies_of_one_picture_count_once() -> None:
    copied = scores(n=2000).model_copy(update={"distinct": 2})
    verdict = judge(evaluation(copied), GateConfig())
    assert not verdict.passed
    assert check(verdict, "test_images").value == 2.0
    assert any(note.startswith("1,998 of the 2,000 test images repeat the pixels") for note in verdict.notes)


def test_the_verdict_says_of_how_many_photographs_the_test_images_come() -> None:
    tiles = scores(n=1200).model_copy(update={"units": 267})
    notes = judge(evaluation(tiles), GateConfig()).notes
    assert any(note.startswith("The 1,200 test images come of 267 photographs") for note in notes)
    apart = scores(n=1200).model_copy(update={"units": 1200})
    assert not any("photographs" in note for note in judge(evaluation(apart), GateConfig()).notes)
    assert not any("repeat" in note for note in judge(evaluation(), GateConfig()).notes)


def test_a_suspiciously_high_score_warns_of_a_leak() -> None:
    verdict = judge(evaluation(scores(accuracy=metric(0.998, 0.001))), GateConfig())
    assert verdict.passed
    assert any("99.8 % is suspiciously high" in note for note in verdict.notes)
    assert not any("suspiciously" in note for note in judge(evaluation(), GateConfig()).notes)


def test_an_ece_limit_that_no_model_could_meet_is_said() -> None:
    judged = evaluation(scores(floor=0.021))
    assert any("lies below 2.1 %" in note for note in judge(judged, GateConfig(max_ece=0.02)).notes)
    for policy in (GateConfig(max_ece=0.03), GateConfig()):
        assert not any("lies below" in note for note in judge(judged, policy).notes)
    assert not any("lies below" in note for note in judge(evaluation(), GateConfig(max_ece=0.02)).notes)


def test_what_the_evaluation_says_of_itself_is_carried_on() -> None:
    judged = evaluation(caveat="Only a sample.", robustness_note="Half of it.", champion_note="")
    assert judge(judged, GateConfig()).notes == ["Only a sample.", "Half of it."]
