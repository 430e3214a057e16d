"""Evaluations with chosen figures, for the tests of the gate."""

from components.artifacts.evaluation import Comparison, Confusion, CorruptionCell, Evaluation, Metric, ScoreSet, Slice
from components.artifacts.verdict import Check, GateVerdict


def metric(value: float, half: float = 0.02) -> Metric:
    """A figure with a symmetric interval."""
    return Metric(value=value, low=value - half, high=value + half)


def scores(n: int = 2000, slices: tuple[Slice, ...] = (), floor: float | None = None, **figures: Metric) -> ScoreSet:
    """Figures of one model; good ones unless named."""
    wrong, hits, accused = round(0.06 * n), round(0.3985 * n), round(0.0285 * n)
    cleared = n - wrong - hits
    counts = Confusion(true_real=cleared, false_ai=accused, false_real=wrong - accused, true_ai=hits)
    # 94, 93 and 5 % of 2,000
    shares = {"accuracy": (n - wrong) / n, "f1": 2 * hits / (2 * hits + wrong), "fpr": accused / (accused + cleared)}
    good = {name: metric(share) for name, share in shares.items()} | {"ece": metric(0.03)}
    return ScoreSet(
        n=n,
        distinct=n,
        metrics=good | figures,
        confusion=counts,
        slices=list(slices),
        ece_noise_floor=floor,
    )


def part(dimension: str, name: str, accuracy: float, n: int = 200, fpr: float | None = None) -> Slice:
    """One slice."""
    return Slice(
        dimension=dimension, name=name, n=n, accuracy=metric(accuracy), fpr=None if fpr is None else metric(fpr)
    )


def cell(name: str, level: str, accuracy: float, fpr: float | None = None) -> CorruptionCell:
    """One cell of the robustness grid."""
    return CorruptionCell(
        corruption=name, level=level, n=400, accuracy=metric(accuracy), fpr=None if fpr is None else metric(fpr)
    )


def against(
    accuracy: Metric, f1: Metric | None = None, slices: dict[str, Metric] | None = None, **fields: object
) -> Comparison:
    """A comparison with champion version 3."""
    values: dict[str, object] = {
        "champion_version": "3",
        "n": 2000,
        "champion": scores(),
        "accuracy_difference": accuracy,
        "f1_difference": f1 or accuracy,
        "only_candidate_right": 40,
        "only_champion_right": 30,
        "mcnemar_p": 0.28,
        "slice_differences": slices or {},
    }
    return Comparison.model_validate(values | fields)


def evaluation(test: ScoreSet | None = None, **fields: object) -> Evaluation:
    """A whole evaluation."""
    values: dict[str, object] = {
        "run_id": "run-1",
        "bundle_digest": "d" * 64,
        "data_fingerprint": "a" * 64,
        "test_fingerprint": "b" * 64,
        "threshold": 0.5,
        "test": test or scores(),
        "champion_note": "No champion yet.",
    }
    return Evaluation.model_validate(values | fields)


def check(verdict: GateVerdict, name: str) -> Check:
    """The one check of a verdict by its name."""
    (found,) = [c for c in verdict.checks if c.name == name]
    return found


def names(verdict: GateVerdict) -> list[str]:
    """The names of a verdict's checks, in their order."""
    return [c.name for c in verdict.checks]
