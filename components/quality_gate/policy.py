"""The gate's judgement: an evaluation and a policy in, a verdict out, and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, nan
from typing import Final, Literal

from components.artifacts.evaluation import Comparison, Evaluation, Metric, Slice
from components.artifacts.verdict import Check, GateVerdict, Outcome
from components.quality_gate.config import GateConfig, OptionalCheck
from components.quality_gate.wording import (
    confidence_interval,
    limit_percent,
    percent,
    points,
    points_interval,
)

NOT_MEASURED = Metric(value=nan)
HEADLINE_REASONS = 3
_OUTSIDE: Final = "confident_errors_outside"


def judge(evaluation: Evaluation, policy: GateConfig) -> GateVerdict:
    """Hold an evaluation against a policy.

    Accuracy and F1 are always enforced. Every optional check runs when its limit is set; those named in
    `report_only` are shown and do not refuse. A figure that is missing or not a number refuses.
    """
    checks = [*_figures(evaluation, policy), *_against_champion(evaluation, policy), _test_size(evaluation, policy)]
    refusals = [check.sentence for check in checks if check.outcome == "refused"]
    return GateVerdict(
        run_id=evaluation.run_id,
        bundle_digest=evaluation.bundle_digest,
        evaluation_sha256=evaluation.digest,
        policy=policy.model_dump(mode="json"),
        passed=not refusals,
        headline=_refused(refusals) if refusals else _passed(evaluation, policy),
        checks=checks,
        notes=_notes(evaluation, policy),
    )


@dataclass(frozen=True)
class _Limit:
    """A bound on one figure."""

    name: str
    wording: str
    comparison: Literal[">=", "<="]
    threshold: float
    enforced: bool = True

    def holds(self, value: float) -> bool:
        # a comparison with NaN is false either way, so what is not a number is refused
        return value >= self.threshold if self.comparison == ">=" else value <= self.threshold

    def outcome(self, value: float) -> Outcome:
        if not self.enforced:
            return "reported"
        return "passed" if self.holds(value) else "refused"

    def check_share(self, metric: Metric, policy: GateConfig) -> Check:
        """Check of a figure between 0 and 1."""
        bound = metric.low if self.comparison == ">=" else metric.high
        value = bound if policy.use_lower_bound and bound is not None and isfinite(metric.value) else metric.value
        word = "at least" if self.comparison == ">=" else "limit"
        by = " by its interval" if value != metric.value and isfinite(value) else ""
        return Check(
            name=self.name,
            value=metric.value if isfinite(metric.value) else None,
            threshold=self.threshold,
            comparison=self.comparison,
            low=metric.low,
            high=metric.high,
            enforced=self.enforced,
            outcome=self.outcome(value),
            sentence=f"{self.wording} {percent(metric.value, self.threshold)} "
            f"({word} {limit_percent(self.threshold)}{by}){confidence_interval(metric)}",
        )

    def check_amount(self, value: float | None, unit: str) -> Check:
        """Check of a figure with a unit."""
        said = "was not measured" if value is None else f"{value:.2f} {unit}"
        return Check(
            name=self.name,
            value=value,
            threshold=self.threshold,
            comparison=self.comparison,
            enforced=self.enforced,
            outcome=self.outcome(nan if value is None else value),
            sentence=f"{self.wording} {said} (limit {self.threshold:g} {unit})",
        )


def _figures(evaluation: Evaluation, policy: GateConfig) -> Iterable[Check]:
    metrics = evaluation.test.metrics
    required = (("accuracy", "accuracy", policy.min_accuracy), ("f1", "F1", policy.min_f1))
    for name, wording, floor in required:
        yield _Limit(name, wording, ">=", floor).check_share(metrics.get(name, NOT_MEASURED), policy)
    optional = (("fpr", "FPR", policy.max_fpr), ("ece", "ECE", policy.max_ece))
    for name, wording, ceiling in optional:
        if ceiling is not None:
            limit = _Limit(name, wording, "<=", ceiling, name not in policy.report_only)
            yield limit.check_share(metrics.get(name, NOT_MEASURED), policy)
    yield from _worst_slices(evaluation, policy)
    yield from _worst_corruptions(evaluation, policy)
    yield from _outside(evaluation, policy)
    if policy.max_latency_ms is not None:
        limit = _Limit(
            "latency", "engine time per image", "<=", policy.max_latency_ms, "latency" not in policy.report_only
        )
        yield limit.check_amount(evaluation.latency_ms, "ms")
    if policy.max_bundle_mb is not None:
        limit = _Limit("size", "bundle", "<=", policy.max_bundle_mb, "size" not in policy.report_only)
        yield limit.check_amount(evaluation.bundle_bytes / 1e6, "MB")


def _worst_slices(evaluation: Evaluation, policy: GateConfig) -> Iterable[Check]:
    parts = _judged_slices(evaluation, policy)
    accuracies = [(part.name, part.accuracy) for part in parts]
    # of the whole class the plain FPR check speaks already
    rates = [(part.name, part.fpr) for part in parts if part.fpr is not None and part.dimension != "class"]
    yield from _worst("slice_accuracy", "accuracy on", ">=", policy.min_worst_slice_accuracy, accuracies, policy)
    yield from _worst("slice_fpr", "FPR on", "<=", policy.max_worst_slice_fpr, rates, policy)


def _worst_corruptions(evaluation: Evaluation, policy: GateConfig) -> Iterable[Check]:
    cells = evaluation.robustness
    accuracies = [(f"{cell.corruption} {cell.level}", cell.accuracy) for cell in cells]
    rates = [(f"{cell.corruption} {cell.level}", cell.fpr) for cell in cells if cell.fpr is not None]
    floor, ceiling = policy.min_worst_corruption_accuracy, policy.max_worst_corruption_fpr
    yield from _worst("corruption_accuracy", "accuracy after", ">=", floor, accuracies, policy)
    yield from _worst("corruption_fpr", "FPR after", "<=", ceiling, rates, policy)


def _outside(evaluation: Evaluation, policy: GateConfig) -> Iterable[Check]:
    ceiling = policy.max_confident_errors_outside
    if ceiling is not None and evaluation.outside is None:
        limit = _Limit(_OUTSIDE, "", "<=", ceiling, _OUTSIDE not in policy.report_only)
        yield limit.check_share(NOT_MEASURED, policy).model_copy(
            update={"sentence": "errors outside the data were not measured: set evaluate.outside to a labelled folder"}
        )
        return
    # a class of which every file was refused has no share: that is no figure, and refuses
    shares = [
        (f"{part.label} photos outside the data", part.confident_errors or NOT_MEASURED)
        for part in (evaluation.outside.classes if evaluation.outside is not None else ())
    ]
    yield from _worst(_OUTSIDE, "wrong with high confidence on", "<=", ceiling, shares, policy)


def _worst(
    name: OptionalCheck,
    wording: str,
    comparison: Literal[">=", "<="],
    threshold: float | None,
    figures: list[tuple[str, Metric]],
    policy: GateConfig,
) -> Iterable[Check]:
    """The worst of several figures against one limit; nothing without a limit."""
    if threshold is None:
        return
    enforced = name not in policy.report_only
    if not figures:
        yield _Limit(name, f"{wording} any part", comparison, threshold, enforced).check_share(NOT_MEASURED, policy)
        return
    checks = [
        _Limit(name, f"{wording} {part}", comparison, threshold, enforced).check_share(metric, policy)
        for part, metric in figures
    ]
    sign = 1.0 if comparison == ">=" else -1.0
    # what is not a number is the worst of all; among equals the refused one
    yield min(checks, key=lambda c: (c.value is not None, c.outcome != "refused", sign * (c.value or 0.0)))


def _against_champion(evaluation: Evaluation, policy: GateConfig) -> Iterable[Check]:
    comparison = evaluation.champion
    if comparison is None:
        return
    if comparison.identical:
        yield Check(
            name="champion",
            value=0.0,
            threshold=None,
            comparison="==",
            outcome="refused",
            sentence=f"equal to the champion (version {comparison.champion_version}): nothing to promote",
        )
        return
    differences = (
        ("champion_accuracy", "accuracy", comparison.accuracy_difference),
        ("champion_f1", "F1", comparison.f1_difference),
    )
    for name, wording, difference in differences:
        yield _non_inferiority(name, wording, difference, comparison, policy)
    yield _champion_slices(evaluation, comparison, policy)


def _non_inferiority(name: str, wording: str, difference: Metric, comparison: Comparison, policy: GateConfig) -> Check:
    limit = _Limit(name, wording, ">=", -policy.non_inferiority_margin, name not in policy.report_only)
    bound = difference.value if difference.low is None else difference.low
    mcnemar = f", McNemar p = {comparison.mcnemar_p:.3g}" if name == "champion_accuracy" else ""
    return Check(
        name=name,
        value=difference.value if isfinite(difference.value) else None,
        threshold=limit.threshold,
        comparison=limit.comparison,
        low=difference.low,
        high=difference.high,
        enforced=limit.enforced,
        outcome=limit.outcome(bound if isfinite(difference.value) else nan),
        sentence=f"{wording} {points(difference.value)} points against champion version {comparison.champion_version} "
        f"(may lose {policy.non_inferiority_margin * 100:g} at most){points_interval(difference)}{mcnemar}",
    )


def _champion_slices(evaluation: Evaluation, comparison: Comparison, policy: GateConfig) -> Check:
    keys = [f"{part.dimension}={part.name}" for part in _judged_slices(evaluation, policy)]
    found = [(key, comparison.slice_differences[key]) for key in keys if key in comparison.slice_differences]
    enforced = "champion_slices" not in policy.report_only
    if not found:
        return Check(
            name="champion_slices",
            value=None,
            threshold=-policy.slice_margin,
            enforced=False,
            outcome="reported",
            sentence=f"no slice has the {policy.min_slice_images} images it takes to compare it with the champion",
        )
    lost = [(key, d) for key, d in found if d.value < -policy.slice_margin and (d.high is None or d.high < 0.0)]
    key, difference = min(lost or found, key=lambda item: item[1].value)
    outcome: Outcome = "refused" if lost else "passed"
    return Check(
        name="champion_slices",
        value=difference.value,
        threshold=-policy.slice_margin,
        low=difference.low,
        high=difference.high,
        enforced=enforced,
        outcome=outcome if enforced else "reported",
        sentence=f"accuracy on {key} {points(difference.value)} points against champion version "
        f"{comparison.champion_version} (a slice may lose {policy.slice_margin * 100:g}){points_interval(difference)}",
    )


def _judged_slices(evaluation: Evaluation, policy: GateConfig) -> list[Slice]:
    return [part for part in evaluation.test.slices if part.n >= policy.min_slice_images]


def _test_size(evaluation: Evaluation, policy: GateConfig) -> Check:
    n = evaluation.test.distinct
    limit = _Limit(
        "test_images", "test images", ">=", float(policy.min_test_images), "test_images" not in policy.report_only
    )
    return Check(
        name=limit.name,
        value=float(n),
        threshold=limit.threshold,
        enforced=limit.enforced,
        outcome=limit.outcome(n),
        sentence=f"{n:,} different test images (at least {policy.min_test_images:,})",
    )


def _refused(reasons: list[str]) -> str:
    more = len(reasons) - HEADLINE_REASONS
    return "REFUSED: " + "; ".join(reasons[:HEADLINE_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _passed(evaluation: Evaluation, policy: GateConfig) -> str:
    metrics, n = evaluation.test.metrics, evaluation.test.n
    figures = f"accuracy {percent(metrics['accuracy'].value)}, F1 {percent(metrics['f1'].value)} on {n:,} test images"
    return f"PASSED: {figures}{_standing(evaluation.champion, policy)}"


def _standing(comparison: Comparison | None, policy: GateConfig) -> str:
    if comparison is None:
        return ""
    champion = f"the champion (version {comparison.champion_version})"
    if comparison.only_candidate_right == comparison.only_champion_right == 0:
        return f"; equal to {champion} on every image"
    difference = comparison.accuracy_difference
    if difference.low is not None and difference.low > 0.0:
        return f"; better than {champion} by {points(difference.value)} points"
    if difference.low is not None and difference.low >= -policy.non_inferiority_margin:
        return f"; not worse than {champion}"
    return f"; compared with {champion} for information only"


def _notes(evaluation: Evaluation, policy: GateConfig) -> list[str]:
    notes = [evaluation.caveat, evaluation.champion_note, evaluation.robustness_note]
    accuracy = evaluation.test.metrics.get("accuracy", NOT_MEASURED)
    n, distinct = evaluation.test.n, evaluation.test.distinct
    if distinct < n:
        notes.append(
            f"{n - distinct:,} of the {n:,} test images repeat the pixels of another one; the intervals count what is "
            "judged once as one. Remove the copies (aidetect data verify names them)."
        )
    units = evaluation.test.units or distinct
    if units < distinct:
        notes.append(
            f"The {n:,} test images come of {units:,} photographs: images of one photograph are no independent "
            "witnesses, so the intervals resample photographs."
        )
    if distinct < policy.min_test_images and accuracy.low is not None and accuracy.high is not None:
        notes.append(
            f"The test split is small: accuracy is known only to lie between {percent(accuracy.low)} and "
            f"{percent(accuracy.high)}."
        )
    if accuracy.value >= policy.leakage_warning_accuracy:
        notes.append(
            f"Accuracy {percent(accuracy.value)} is suspiciously high: look for images that train and test share, and "
            "for a format or size that gives the class away (both are in the report of verify_data)."
        )
    floor = evaluation.test.ece_noise_floor
    if policy.max_ece is not None and floor is not None and policy.max_ece < floor:
        notes.append(
            f"The ECE limit {limit_percent(policy.max_ece)} lies below {percent(floor)}, what {n:,} images show by "
            "chance of a perfectly calibrated model; raise gate.max_ece or the number of test images."
        )
    return [note for note in notes if note]
