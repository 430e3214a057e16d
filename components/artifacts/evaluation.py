"""The evaluation artifact: what evaluate writes and quality_gate, register and reports read.

A folder with `evaluation.json` (this schema), `predictions.parquet` (one row an image and model) and plots.
"""

import hashlib
import json
from math import nan
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from serving.detector.labels import LABELS
from serving.platform.errors import StageError, one_line
from serving.platform.frozen import Frozen
from serving.platform.parquet import coded, weight
from serving.platform.records import read_record

EVALUATION_JSON: Final = "evaluation.json"
PREDICTIONS_PARQUET: Final = "predictions.parquet"
CANDIDATE: Final = "candidate"
TEST: Final = "test"

_COUNTED: Final = ("accuracy", "f1", "precision", "recall", "fpr", "fnr")
"""The gate's figures that follow from counts alone."""
_ROUNDING: Final = 1e-9
_MOST_VERDICTS: Final = 50_000_000
_MOST_TEXT: Final = 4_000_000_000
"""Bytes of their texts, written out: a file may hold a long one once and name it in every row."""


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


class DecisionFigures(Frozen):
    """What the decisions came to, by score and domain; what files say of themselves is left out.

    Shares are None where there is nothing to count, and so is a promise that the bundle does not make.
    """

    n: int
    promised_real: float | None
    """Largest share of real photos called `likely_ai` that training promised for new photos of the same kind."""
    promised_ai: float | None
    """Largest share of generated ones called `likely_real`."""
    real_called_ai: Metric | None
    """Real photos called `likely_ai`."""
    ai_called_real: Metric | None
    """Generated photos called `likely_real`."""
    to_review: Metric | None
    """Between the thresholds, or outside the domain."""
    outside_domain: Metric | None
    """None as well where the bundle knows no domain."""
    outside_by: dict[str, Metric] = {}
    """Signal -> share of images that it alone puts outside."""

    @property
    def told(self) -> list[tuple[str, Metric]]:
        """Every share that there is, with its name for people."""
        shares = {
            "real called likely_ai": self.real_called_ai,
            "generated called likely_real": self.ai_called_real,
            "sent to review": self.to_review,
            "outside the domain": self.outside_domain,
            **{f"outside by {name}": share for name, share in self.outside_by.items()},
        }
        return [(name, share) for name, share in shares.items() if share is not None]


class ScoreSet(Frozen):
    """All figures of one model on one set of images."""

    n: int
    distinct: int
    """Images whose pixels are those of no other one before; n where there are no copies."""
    units: int | None = None
    """Independent pictures among them: the photographs that they come of, copies counted once; None: not recorded."""
    metrics: dict[str, Metric]
    """accuracy, precision, recall, f1, roc_auc, pr_auc, tpr_at_1pct_fpr, fpr, fnr, ece, brier."""
    confusion: Confusion
    calibration: list[CalibrationBin] = []
    confidence: dict[str, ConfidenceBand] = {}
    slices: list[Slice] = []
    roc: list[tuple[float, float, float]] = []
    """(false positive rate, true positive rate, threshold), thinned to at most 200 points for plots."""
    decisions: DecisionFigures | None = None
    """Of the candidate; None for a champion, and where they were not counted."""
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


class OutsideClass(Frozen):
    """What became of the photos of one class of a labelled folder; shares are of those judged, None where none was."""

    label: str
    n: int
    refused: int
    """Files the server would refuse: they have no verdict."""
    wrong: Metric | None
    """Whose `prediction` is the other class."""
    confident_errors: Metric | None
    """Wrong with confidence `high`, as answered."""
    confident_errors_by_score: Metric | None
    """Wrong with a score of the `high` band, before the domain has a say: what the domain check saves from."""
    wrong_decisions: Metric | None
    """Decided as the other class."""
    to_review: Metric | None
    outside_domain: Metric | None

    @property
    def told(self) -> list[tuple[str, Metric | None]]:
        """Every share with its name for people."""
        return [
            ("prediction wrong", self.wrong),
            ("wrong with high confidence", self.confident_errors),
            ("the same by score alone", self.confident_errors_by_score),
            ("decided as the other class", self.wrong_decisions),
            ("sent to review", self.to_review),
            ("outside the trained domain", self.outside_domain),
        ]


class OutsideFigures(Frozen):
    """How a model does on a labelled folder that has nothing to do with its training."""

    place: str
    classes: tuple[OutsideClass, ...]


class Evaluation(Frozen):
    """`evaluation.json`."""

    schema_version: int = 1
    run_id: str
    bundle_digest: str
    data_fingerprint: str
    test_fingerprint: str
    predictions_sha256: str = ""
    """Of `predictions.parquet`, the verdicts behind the figures."""
    threshold: float
    test: ScoreSet
    unseen_generator: ScoreSet | None = None
    robustness: list[CorruptionCell] = []
    robustness_note: str = ""
    outside: OutsideFigures | None = None
    """Of the folder `evaluate.outside`; None where none was given."""
    champion: Comparison | None = None
    champion_note: str = ""
    """Why there is no comparison, where there is none."""
    caveat: str = ""
    """What these figures do not show; belongs wherever they are shown."""
    latency_ms: float | None = None
    """Median engine time per image at batch 1 on this machine, one thread."""
    bundle_bytes: int = 0

    @property
    def digest(self) -> str:
        """sha256 over all figures that were written, and through `predictions_sha256` over every verdict behind them.

        A figure that a later version of this program knows was never written: what was judged before it stays judged.
        """
        document = json.dumps(self.model_dump(mode="json", exclude_unset=True), sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()


def read_evaluation(folder: Path) -> Evaluation:
    """Read `evaluation.json` of an evaluation folder.

    Raises:
        StageError: there is none, or it is damaged or of another version.
    """
    path = folder / EVALUATION_JSON
    try:
        return Evaluation.model_validate_json(read_record(path))
    except OSError as error:
        raise StageError(
            f"{folder}: no readable {EVALUATION_JSON} ({error.strerror}); give the evaluation folder of a run"
        ) from error
    except ValidationError as error:
        raise StageError(f"{path}: damaged or of another version: {one_line(error)}; run evaluate again") from error


def check_evaluation(folder: Path) -> Evaluation:
    """Read an evaluation and hold it against the verdicts that it was made from.

    Raises:
        StageError: it is no evaluation, its verdicts are others', or its figures do not follow from them.
    """
    found = read_evaluation(folder)
    path = folder / PREDICTIONS_PARQUET
    if not path.is_file() or _sha256(path) != found.predictions_sha256:
        raise StageError(f"{path}: not the verdicts that {EVALUATION_JSON} was made from; run evaluate again")
    counts = _recount(path)
    figures = {"n": float(found.test.n), **{k: m.value for k, m in found.test.metrics.items() if k in _COUNTED}}
    for name, value in _figures(counts).items():
        # a comparison with a figure that is not a number is false either way
        if not abs(figures.get(name, value) - value) <= _ROUNDING:
            raise StageError(
                f"{folder / EVALUATION_JSON}: {name} {figures.get(name, value):g} does not follow from "
                f"{PREDICTIONS_PARQUET}, which gives {value:g}: it was edited; run evaluate again"
            )
    if counts != found.test.confusion:
        raise StageError(f"{folder / EVALUATION_JSON}: its confusion counts were edited; run evaluate again")
    return found


def write_evaluation(folder: Path, evaluation: Evaluation) -> Evaluation:
    """Write `evaluation.json` beside its `predictions.parquet`; returns it with their hash in it."""
    whole = evaluation.model_copy(update={"predictions_sha256": _sha256(folder / PREDICTIONS_PARQUET)})
    (folder / EVALUATION_JSON).write_text(whole.model_dump_json(indent=1) + "\n")
    return whole


def _text_bytes(path: Path) -> int:
    """Bytes of a Parquet file's texts, a repeated one counted for each of its rows without writing it out."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as opened:
        texts = coded(opened.schema_arrow)
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        return sum(weight(batch, each=0) for batch in file.iter_batches(columns=texts))


def _recount(path: Path) -> Confusion:
    """Confusion counts of the candidate's verdicts on the test split."""
    import pyarrow.parquet as pq

    if pq.read_metadata(path).num_rows > _MOST_VERDICTS:
        raise StageError(f"{path}: more than {_MOST_VERDICTS:,} verdicts, which no evaluation has; run evaluate again")
    if (size := _text_bytes(path)) > _MOST_TEXT:
        raise StageError(f"{path}: {size:,} bytes of texts, which no verdicts have; run evaluate again")
    rows = pq.read_table(
        path, columns=["label", "prediction"], filters=[("model", "=", CANDIDATE), ("split", "=", TEST)]
    )
    counted = rows.group_by(["label", "prediction"]).aggregate([([], "count_all")]).to_pylist()
    n = {(row["label"], row["prediction"]): row["count_all"] for row in counted}
    real, ai = LABELS
    return Confusion(
        true_real=n.get((real, real), 0),
        false_ai=n.get((real, ai), 0),
        false_real=n.get((ai, real), 0),
        true_ai=n.get((ai, ai), 0),
    )


def _figures(c: Confusion) -> dict[str, float]:
    real, ai = c.true_real + c.false_ai, c.false_real + c.true_ai
    said_ai, right = c.true_ai + c.false_ai, c.true_real + c.true_ai
    shares = {
        "accuracy": (right, real + ai),
        "recall": (c.true_ai, ai),
        "fpr": (c.false_ai, real),
        "fnr": (c.false_real, ai),
    }
    found = {name: part / whole if whole else nan for name, (part, whole) in shares.items()}
    found["precision"] = c.true_ai / said_ai if said_ai else 0.0
    found["f1"] = 2 * c.true_ai / (ai + said_ai) if ai + said_ai else 0.0
    return {"n": float(real + ai), **found}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
