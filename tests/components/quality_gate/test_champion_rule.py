"""The judgement against the champion: equal, better, not worse, worse; in all and slice by slice."""

from math import nan

import pytest

from components.artifacts.evaluation import Metric
from components.artifacts.verdict import Check
from components.quality_gate.config import GateConfig
from components.quality_gate.policy import judge
from tests.components.quality_gate.evaluations import against, check, evaluation, metric, names, part, scores


def test_the_same_bundle_is_equal_and_there_is_nothing_to_promote() -> None:
    same = against(Metric(value=0.0, low=0.0, high=0.0), identical=True, only_candidate_right=0, only_champion_right=0)
    for policy in (GateConfig(), GateConfig(report_only=("champion_accuracy", "champion_f1", "champion_slices"))):
        verdict = judge(evaluation(champion=same, champion_note=""), policy)
        assert not verdict.passed
        assert verdict.headline == "REFUSED: equal to the champion (version 3): nothing to promote"
        assert "better" not in verdict.model_dump_json()
        assert "champion_accuracy" not in names(verdict)


def test_a_model_equal_on_every_image_is_said_equal_and_not_better() -> None:
    zero = Metric(value=0.0, low=0.0, high=0.0)
    equal = against(zero, only_candidate_right=0, only_champion_right=0, mcnemar_p=1.0)
    verdict = judge(evaluation(champion=equal), GateConfig())
    assert verdict.passed
    assert verdict.headline.endswith("; equal to the champion (version 3) on every image")
    assert "better" not in verdict.headline


def test_a_better_model_is_said_better_with_its_test() -> None:
    verdict = judge(evaluation(champion=against(metric(0.021, 0.01), mcnemar_p=0.00041)), GateConfig())
    assert verdict.passed
    assert verdict.headline.endswith("; better than the champion (version 3) by +2.1 points")
    assert check(verdict, "champion_accuracy").sentence == (
        "accuracy +2.1 points against champion version 3 (may lose 0.5 at most), 95 % CI +1.1 to +3.1, "
        "McNemar p = 0.00041"
    )


def test_a_model_within_the_margin_is_said_not_worse() -> None:
    verdict = judge(evaluation(champion=against(metric(0.001, 0.004))), GateConfig())
    assert verdict.passed
    assert verdict.headline.endswith("; not worse than the champion (version 3)")


@pytest.mark.parametrize("which", ["accuracy", "F1"])
def test_a_model_that_may_be_worse_by_more_than_the_margin_is_refused(which: str) -> None:
    fine, doubtful = metric(0.01, 0.005), metric(0.001, 0.007)
    pair = (doubtful, fine) if which == "accuracy" else (fine, doubtful)
    verdict = judge(evaluation(champion=against(*pair)), GateConfig())
    assert not verdict.passed
    assert verdict.headline.startswith(
        f"REFUSED: {which} +0.1 points against champion version 3 (may lose 0.5 at most)"
    )
    assert judge(evaluation(champion=against(*pair)), GateConfig(non_inferiority_margin=0.01)).passed


def test_a_reported_champion_rule_does_not_refuse_and_claims_nothing() -> None:
    policy = GateConfig(report_only=("champion_accuracy", "champion_f1"))
    worse = judge(evaluation(champion=against(metric(-0.05, 0.01))), policy)
    assert worse.passed
    assert worse.headline.endswith("; compared with the champion (version 3) for information only")
    bare = judge(evaluation(champion=against(Metric(value=-0.05))), policy)
    assert bare.headline == worse.headline


def test_a_difference_without_an_interval_is_held_as_it_is() -> None:
    assert judge(evaluation(champion=against(Metric(value=-0.004))), GateConfig()).passed
    refused = judge(evaluation(champion=against(Metric(value=-0.006))), GateConfig())
    assert "accuracy -0.6 points" in refused.headline
    assert not judge(evaluation(champion=against(Metric(value=nan))), GateConfig()).passed


SLICES = (part("generator", "gan", 0.9), part("generator", "diffusion", 0.9), part("source", "tiny", 0.2, n=20))


def test_a_slice_lost_to_the_champion_is_refused_by_its_name() -> None:
    differences = {
        "generator=gan": metric(-0.08, 0.03),
        "generator=diffusion": metric(0.02, 0.03),
        "source=tiny": metric(-0.5),
    }
    judged = evaluation(scores(slices=SLICES), champion=against(metric(0.01, 0.005), slices=differences))
    verdict = judge(judged, GateConfig())
    assert verdict.headline == (
        "REFUSED: accuracy on generator=gan -8.0 points against champion version 3 (a slice may lose 5), "
        "95 % CI -11.0 to -5.0"
    )
    reported = judge(judged, GateConfig(report_only=("champion_slices",)))
    assert reported.passed
    assert check(reported, "champion_slices").outcome == "reported"
    assert judge(judged, GateConfig(slice_margin=0.1)).passed


def test_a_slice_that_may_have_lost_by_chance_is_shown_and_passes() -> None:
    differences = {"generator=gan": metric(-0.08, 0.09), "generator=diffusion": metric(0.02, 0.03)}
    judged = evaluation(scores(slices=SLICES), champion=against(metric(0.01, 0.005), slices=differences))
    found = check(judge(judged, GateConfig()), "champion_slices")
    assert found.outcome == "passed"
    assert found.sentence.startswith("accuracy on generator=gan -8.0 points")


def test_a_slice_loss_without_an_interval_counts() -> None:
    judged = evaluation(
        scores(slices=SLICES), champion=against(metric(0.01, 0.005), slices={"generator=gan": Metric(value=-0.08)})
    )
    assert "generator=gan" in judge(judged, GateConfig()).headline
    assert judge(judged, GateConfig()).headline.endswith("(a slice may lose 5)")


def test_a_slice_at_its_very_limits_is_kept() -> None:
    """Losing just what it may, an interval that just reaches zero, and just the images that it takes."""
    margin, least = GateConfig().slice_margin, GateConfig().min_slice_images

    def found(difference: Metric, n: int = least) -> Check:
        slices, lost = (part("generator", "gan", 0.9, n=n),), {"generator=gan": difference}
        judged = evaluation(scores(slices=slices), champion=against(metric(0.01, 0.005), slices=lost))
        return check(judge(judged, GateConfig()), "champion_slices")

    assert found(Metric(value=-margin)).outcome == "passed"
    assert found(Metric(value=-margin - 1e-9)).outcome == "refused"
    assert found(Metric(value=-0.2, low=-0.4, high=0.0)).outcome == "passed"
    assert found(Metric(value=-0.2, low=-0.4, high=-1e-9)).outcome == "refused"
    assert found(Metric(value=-0.2), n=least - 1).outcome == "reported"


def test_no_slice_to_compare_is_said() -> None:
    found = check(judge(evaluation(champion=against(metric(0.01, 0.005))), GateConfig()), "champion_slices")
    assert found.outcome == "reported"
    assert "no slice has the 50 images" in found.sentence


def test_the_slice_limits_are_bounds_that_still_pass() -> None:
    def lost(value: float, high: float) -> bool:
        differences = {"generator=gan": Metric(value=value, low=value - 0.01, high=high)}
        judged = evaluation(scores(slices=SLICES), champion=against(metric(0.01, 0.005), slices=differences))
        return not judge(judged, GateConfig(slice_margin=0.0625)).passed

    # a loss of exactly the margin is allowed, and so is one whose interval reaches zero
    assert not lost(-0.0625, -0.01)
    assert lost(-0.0626, -0.01)
    assert not lost(-0.0626, 0.0)
    assert lost(-0.0626, -1e-9)


def test_a_slice_is_judged_from_its_least_number_of_images_on() -> None:
    for n, judged in ((49, False), (50, True)):
        small = evaluation(scores(slices=(part("generator", "gan", 0.2, n=n),)))
        found = check(judge(small, GateConfig(min_worst_slice_accuracy=0.5)), "slice_accuracy")
        assert (found.value == 0.2) is judged
