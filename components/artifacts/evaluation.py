"""The evaluation artifact: what evaluate writes and quality_gate, register and reports read.

A folder with `evaluation.json` (this schema), `predictions.parquet` (one row an image and model) and plots.
"""

from pathlib import Path
from typing import Final

from serving.platform.frozen import Frozen

EVALUATION_JSON: Final = "evaluation.json"
PREDICTIONS_PARQUET: Final = "predictions.parquet"


class Metric(Frozen):
    """A value with its 95 % interval; the bounds are None where no interval is defined."""

    value: float
    low: float | None = None
    high: float | None = None


class Confusion(Frozen):
    """Counts at the shipped threshold; positive is `ai_generated`."""

    true_real: int
    false_ai: int
    false_real: int
    true_ai: int


class ConfidenceBand(Frozen):
    """How often verdicts of one confidence band were right."""

    n: int
    accuracy: Metric | None


class CalibrationBin(Frozen):
    """One bin of the reliability diagram."""

    n: int
    mean_probability: float
    observed: float


class Slice(Frozen):
    """Figures of one part of the test split, e.g. dimension `generator`, name `ldm_uncond`."""

    dimension: str
    name: str
    n: int
    accuracy: Metric
    fpr: Metric | None = None
    fnr: Metric | None = None


class CorruptionCell(Frozen):
    """Figures of the test images (or a fixed subsample of n) after one corruption."""

    corruption: str
    level: str
    n: int
    accuracy: Metric
    fpr: Metric | None = None
    flip_rate: float = 0.0
    """Share of images whose verdict differs from that on the clean image."""
    accuracy_change: Metric | None = None
    """Accuracy minus that of the same images clean, paired."""
    champion_accuracy: Metric | None = None
    champion_difference: Metric | None = None
    """Candidate minus champion on these corrupted images, paired."""


class ScoreSet(Frozen):
    """All figures of one model on one set of images."""

    n: int
    metrics: dict[str, Metric]
    """accuracy, precision, recall, f1, roc_auc, pr_auc, tpr_at_1pct_fpr, fpr, fnr, ece, brier."""
    confusion: Confusion
    calibration: list[CalibrationBin] = []
    confidence: dict[str, ConfidenceBand] = {}
    slices: list[Slice] = []
    roc: list[tuple[float, float, float]] = []
    """(false positive rate, true positive rate, threshold), thinned to at most 200 points for plots."""
    ece_noise_floor: float | None = None
    """95th percentile of the ECE that a perfectly calibrated model would show on so many images by chance."""


class Comparison(Frozen):
    """Candidate against champion, paired on the same images (positive differences favour the candidate)."""

    champion_version: str
    n: int
    champion: ScoreSet
    accuracy_difference: Metric
    f1_difference: Metric
    only_candidate_right: int
    only_champion_right: int
    mcnemar_p: float
    slice_differences: dict[str, Metric] = {}
    """`dimension=name` -> accuracy difference with interval."""
    identical: bool = False
    """True when both models have the same content address."""


class Evaluation(Frozen):
    """`evaluation.json`."""

    schema_version: int = 1
    run_id: str
    bundle_digest: str
    data_fingerprint: str
    test_fingerprint: str
    threshold: float
    test: ScoreSet
    unseen_generator: ScoreSet | None = None
    robustness: list[CorruptionCell] = []
    robustness_note: str = ""
    champion: Comparison | None = None
    champion_note: str = ""
    """Why there is no comparison, where there is none."""
    caveat: str = ""
    """What these figures do not show; belongs wherever they are shown."""
    latency_ms: float | None = None
    """Median engine time per image at batch 1 on this machine, one thread."""
    bundle_bytes: int = 0


def read_evaluation(folder: Path) -> Evaluation:
    """Read `evaluation.json` of an evaluation folder."""
    return Evaluation.model_validate_json((folder / EVALUATION_JSON).read_text())


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `evaluation.json`."""
    (folder / EVALUATION_JSON).write_text(evaluation.model_dump_json(indent=1) + "\n")
