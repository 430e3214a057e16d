"""What a verdict writes down, field by field: programs read it, and people years later."""

from math import nan

import pytest

from components.artifacts.evaluation import Metric, OutsideClass, OutsideFigures
from components.artifacts.verdict import Check
from components.quality_gate.config import GateConfig
from components.quality_gate.policy import judge
from tests.components.quality_gate.evaluations import against, cell, check, evaluation, metric, names, part, scores

LOOSE = {
    "max_fpr": 0.06,
    "max_ece": 0.04,
    "min_worst_slice_accuracy": 0.9,
    "max_worst_slice_fpr": 0.1,
    "min_worst_corruption_accuracy": 0.75,
    "max_worst_corruption_fpr": 0.1,
    "max_latency_ms": 5.0,
    "max_bundle_mb": 20.0,
}
ALL_OPTIONAL = (
    *("fpr", "ece", "slice_accuracy", "slice_fpr", "corruption_accuracy", "corruption_fpr"),
    *("latency", "size", "champion_accuracy", "champion_f1", "champion_slices", "test_images"),
)


def figures(found: Check) -> tuple[object, ...]:
    """What stands beside the words."""
    return (found.value, found.comparison, found.threshold, found.low, found.high, found.enforced, found.outcome)


def share(found: Metric, comparison: str, threshold: float, outcome: str = "passed") -> tuple[object, ...]:
    return (found.value, comparison, threshold, found.low, found.high, outcome != "reported", outcome)


def test_every_check_writes_its_figures_and_whether_it_counts() -> None:
    tools = part("source", "tools", 0.91, fpr=0.0625)
    worst, best = cell("jpeg", "q50", 0.8125, 0.07), cell("blur", "sigma 1", 0.88, 0.02)
    accuracy, f1, lost = metric(0.0125, 0.01), metric(0.02, 0.015), metric(-0.01, 0.03)
    judged = evaluation(
        scores(slices=(tools,)),
        robustness=[worst, best],
        latency_ms=4.0,
        bundle_bytes=17_000_000,
        champion=against(accuracy, f1, {"source=tools": lost}),
    )
    test = judged.test.metrics
    for report_only, outcome in (((), "passed"), (ALL_OPTIONAL, "reported")):
        policy = GateConfig.model_validate({**LOOSE, "report_only": report_only})
        verdict = judge(judged, policy)
        assert {c.name: figures(c) for c in verdict.checks} == {
            "accuracy": share(test["accuracy"], ">=", 0.85),
            "f1": share(test["f1"], ">=", 0.8),
            "fpr": share(test["fpr"], "<=", 0.06, outcome),
            "ece": share(test["ece"], "<=", 0.04, outcome),
            "slice_accuracy": share(tools.accuracy, ">=", 0.9, outcome),
            "slice_fpr": share(tools.fpr or Metric(value=nan), "<=", 0.1, outcome),
            "corruption_accuracy": share(worst.accuracy, ">=", 0.75, outcome),
            "corruption_fpr": share(worst.fpr or Metric(value=nan), "<=", 0.1, outcome),
            "latency": (4.0, "<=", 5.0, None, None, outcome == "passed", outcome),
            "size": (17.0, "<=", 20.0, None, None, outcome == "passed", outcome),
            "champion_accuracy": share(accuracy, ">=", -0.005, outcome),
            "champion_f1": share(f1, ">=", -0.005, outcome),
            "champion_slices": share(lost, ">=", -0.05, outcome),
            "test_images": (2000.0, ">=", 1000.0, None, None, outcome == "passed", outcome),
        }
        assert verdict.policy == GateConfig.model_validate({**LOOSE, "report_only": report_only}).model_dump(
            mode="json"
        )
        assert (verdict.run_id, verdict.evaluation_sha256) == ("run-1", judged.digest)


def test_every_check_has_its_sentence() -> None:
    judged = evaluation(
        scores(slices=(part("source", "tools", 0.91, fpr=0.0625),)),
        robustness=[cell("jpeg", "q50", 0.8125, 0.07)],
        latency_ms=4.0,
        bundle_bytes=17_000_000,
        champion=against(metric(0.013, 0.01), metric(0.02, 0.015), {"source=tools": metric(-0.01, 0.03)}),
    )
    verdict = judge(judged, GateConfig.model_validate(LOOSE))
    assert [c.sentence for c in verdict.checks] == [
        "accuracy 94.0 % (at least 85 %), 95 % CI 92.0-96.0",
        "F1 93.0 % (at least 80 %), 95 % CI 91.0-95.0",
        "FPR 5.0 % (limit 6 %), 95 % CI 3.0-7.0",
        "ECE 3.0 % (limit 4 %), 95 % CI 1.0-5.0",
        "accuracy on tools 91.0 % (at least 90 %), 95 % CI 89.0-93.0",
        "FPR on tools 6.2 % (limit 10 %), 95 % CI 4.2-8.2",
        "accuracy after jpeg q50 81.2 % (at least 75 %), 95 % CI 79.2-83.2",
        "FPR after jpeg q50 7.0 % (limit 10 %), 95 % CI 5.0-9.0",
        "engine time per image 4.00 ms (limit 5 ms)",
        "bundle 17.00 MB (limit 20 MB)",
        "accuracy +1.3 points against champion version 3 (may lose 0.5 at most), 95 % CI +0.3 to +2.3, "
        "McNemar p = 0.28",
        "F1 +2.0 points against champion version 3 (may lose 0.5 at most), 95 % CI +0.5 to +3.5",
        "accuracy on source=tools -1.0 points against champion version 3 (a slice may lose 5), 95 % CI -4.0 to +2.0",
        "2,000 different test images (at least 1,000)",
    ]


def test_what_is_no_number_is_written_as_none_and_refuses() -> None:
    unknown = Metric(value=nan, low=0.9, high=0.95)
    judged = evaluation(scores(accuracy=unknown), champion=against(unknown))
    verdict = judge(judged, GateConfig())
    for name, threshold in (("accuracy", 0.85), ("champion_accuracy", -0.005), ("champion_f1", -0.005)):
        assert figures(check(verdict, name)) == (None, ">=", threshold, 0.9, 0.95, True, "refused")
    unmeasured = check(judge(evaluation(), GateConfig(max_latency_ms=5.0)), "latency")
    assert figures(unmeasured) == (None, "<=", 5.0, None, None, True, "refused")
    assert unmeasured.sentence == "engine time per image was not measured (limit 5 ms)"
    same = against(Metric(value=0.0, low=0.0, high=0.0), identical=True)
    assert figures(check(judge(evaluation(champion=same), GateConfig()), "champion")) == (
        *(0.0, "==", None, None, None, True, "refused"),
    )
    none = check(judge(evaluation(champion=against(metric(0.01, 0.005))), GateConfig()), "champion_slices")
    assert figures(none) == (None, ">=", -0.05, None, None, False, "reported")


def photos(label: str, errors: Metric | None) -> OutsideClass:
    """One class of a folder outside the data."""
    shares = {"wrong": errors, "confident_errors_by_score": errors, "wrong_decisions": errors}
    return OutsideClass(
        label=label, n=50, refused=0, confident_errors=errors, to_review=errors, outside_domain=errors, **shares
    )


def test_errors_outside_the_data_are_held_to_their_limit_by_the_worse_class() -> None:
    name = "confident_errors_outside"
    bad, good = photos("real", metric(0.05, 0.01)), photos("ai_generated", metric(0.01, 0.005))
    judged = evaluation(outside=OutsideFigures(place="beside", classes=(good, bad)))
    for limit, report_only, outcome in ((0.05, (), "passed"), (0.04, (), "refused"), (0.04, (name,), "reported")):
        policy = GateConfig.model_validate({"max_confident_errors_outside": limit, "report_only": report_only})
        found = check(judge(judged, policy), name)
        assert figures(found) == (0.05, "<=", limit, 0.04, pytest.approx(0.06), outcome != "reported", outcome)
        assert found.sentence == (
            f"wrong with high confidence on real photos outside the data 5.0 % (limit {limit * 100:g} %), "
            "95 % CI 4.0-6.0"
        )
    strict = check(judge(judged, GateConfig(max_confident_errors_outside=0.05, use_lower_bound=True)), name)
    assert (strict.outcome, "by its interval" in strict.sentence) == ("refused", True)
    unjudged = evaluation(outside=OutsideFigures(place="beside", classes=(good, photos("real", None))))
    assert check(judge(unjudged, GateConfig(max_confident_errors_outside=0.05)), name).outcome == "refused"
    for report_only, outcome in (((), "refused"), ((name,), "reported")):
        policy = GateConfig.model_validate({"max_confident_errors_outside": 0.05, "report_only": report_only})
        found = check(judge(evaluation(), policy), name)
        assert figures(found) == (None, "<=", 0.05, None, None, outcome != "reported", outcome)
        assert found.sentence == "errors outside the data were not measured: set evaluate.outside to a labelled folder"
    assert name not in names(judge(judged, GateConfig()))


def test_a_limit_on_parts_of_which_there_are_none_refuses() -> None:
    for report_only, outcome in (((), "refused"), (("corruption_fpr",), "reported")):
        policy = GateConfig.model_validate({"max_worst_corruption_fpr": 0.1, "report_only": report_only})
        found = check(judge(evaluation(), policy), "corruption_fpr")
        assert figures(found) == (None, "<=", 0.1, None, None, outcome != "reported", outcome)


def test_nothing_right_at_all_is_the_worst() -> None:
    cells = [cell("jpeg", "q50", 0.5), cell("blur", "sigma 2", 0.0), cell("jpeg", "q30", 0.7)]
    found = check(
        judge(evaluation(robustness=cells), GateConfig(min_worst_corruption_accuracy=0.9)), "corruption_accuracy"
    )
    assert (found.value, found.outcome) == (0.0, "refused")


def test_at_its_very_limit_a_figure_holds() -> None:
    policy = GateConfig(max_fpr=0.05, max_ece=0.03, min_test_images=2000, leakage_warning_accuracy=0.94)
    at = evaluation(scores(floor=0.03))
    verdict = judge(at, policy)
    assert verdict.passed
    assert not any("small" in note or "ECE limit" in note for note in verdict.notes)
    assert [note for note in verdict.notes if "suspiciously" in note] == [
        "Accuracy 94.0 % is suspiciously high: look for images that train and test share, and for a format or size "
        "that gives the class away (both are in the report of verify_data)."
    ]
    margin = GateConfig().non_inferiority_margin
    for low, said in ((0.0, "not worse than"), (-margin, "not worse than"), (1e-6, "better than")):
        difference = Metric(value=0.01, low=low, high=0.02)
        assert said in judge(evaluation(champion=against(difference)), GateConfig()).headline


def test_a_figure_that_is_missing_refuses() -> None:
    found = scores()
    without = found.model_copy(update={"metrics": {k: v for k, v in found.metrics.items() if k not in ("f1", "fpr")}})
    verdict = judge(evaluation(without), GateConfig(max_fpr=0.1))
    assert [check(verdict, name).outcome for name in ("accuracy", "f1", "fpr")] == ["passed", "refused", "refused"]


def test_three_reasons_stand_in_the_headline_and_the_rest_is_counted() -> None:
    tight = {"min_accuracy": 0.99, "min_f1": 0.99, "max_fpr": 0.01}
    assert "more" not in judge(evaluation(), GateConfig.model_validate(tight)).headline
    assert judge(evaluation(), GateConfig.model_validate({**tight, "max_ece": 0.01})).headline.endswith("; and 1 more")


def test_notes_say_what_to_do_about_copies_and_of_how_many_photographs() -> None:
    found = scores().model_copy(update={"distinct": 1990, "units": 400})
    notes = judge(evaluation(found), GateConfig()).notes
    assert notes[-2:] == [
        "10 of the 2,000 test images repeat the pixels of another one; the intervals count what is judged once as one. "
        "Remove the copies (aidetect data verify names them).",
        "The 2,000 test images come of 400 photographs: images of one photograph are no independent witnesses, so the "
        "intervals resample photographs.",
    ]
