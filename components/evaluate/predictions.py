"""`predictions.parquet`: every verdict behind the figures, so that each of them can be recomputed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.evaluation import CANDIDATE as CANDIDATE
from components.artifacts.evaluation import PREDICTIONS_PARQUET
from components.evaluate.config import EvaluateConfig
from components.evaluate.decisions import Decided
from components.evaluate.metrics import Judged
from components.evaluate.slices import Frame
from serving.detector.labels import LABELS

CHAMPION = "champion"
DRAWN: Final = b"aidetect.drawn"
"""In the file's own metadata: how intervals, bins and slices were made of the rows, as JSON."""
_SETTINGS: Final = {"seed", "bootstrap_draws", "paired_draws", "calibration_bins", "slice_min_images"}
_TEXTS: Final = ("path", "generator", "source", "pixel_sha256")


@dataclass(frozen=True)
class ModelVerdicts:
    """What one model said of one split, or of some of its images after a corruption."""

    model: str
    """`candidate` or `champion`."""
    frame: Frame
    judged: Judged
    rows: npt.NDArray[np.int64] | None = None
    """Which images of the split; None: all of them."""
    after: str = ""
    """The corruption and its level, as reports write them."""
    decided: Decided | None = None
    """None for a champion, and for corrupted images."""


def corrupted(split: str, after: str) -> str:
    """What the column `split` says of images after a corruption."""
    return f"{split} after {after}"


def write_predictions(folder: Path, verdicts: Iterable[ModelVerdicts], config: EvaluateConfig) -> None:
    """One row for each image and model.

    Args:
        folder: the evaluation folder.
        verdicts: of each model on each split.
        config: how figures are made of them.
    """
    table = pa.concat_tables([_table(part) for part in verdicts])
    drawn = json.dumps(config.model_dump(mode="json", include=_SETTINGS))
    pq.write_table(table.replace_schema_metadata({DRAWN: drawn}), folder / PREDICTIONS_PARQUET, compression="zstd")


def _table(part: ModelVerdicts) -> pa.Table:
    frame, judged, decided = part.frame, part.judged, part.decided
    n = len(judged.positive)
    split = corrupted(frame.split, part.after) if part.after else frame.split
    # of a corrupted image `row` says which one of the split it was, and what else is known stands there
    known = part.rows is None
    texts = {name: getattr(frame, name) if known else [None] * n for name in _TEXTS}
    return pa.table(
        {
            "model": pa.array([part.model] * n).dictionary_encode(),
            "split": pa.array([split] * n).dictionary_encode(),
            "row": pa.array(np.arange(n) if part.rows is None else part.rows, pa.int64()),
            "path": pa.array(texts["path"], pa.string()),
            "label": [LABELS[int(positive)] for positive in judged.positive],
            "generator": pa.array(texts["generator"], pa.string()),
            "source": pa.array(texts["source"], pa.string()),
            "pixel_sha256": pa.array(texts["pixel_sha256"], pa.string()),
            "shorter_side_px": pa.array(frame.shorter_side_px if known else [None] * n, pa.int64()),
            "logit": judged.logits,
            "probability": judged.probabilities,
            "prediction": [LABELS[int(predicted)] for predicted in judged.predicted],
            "confidence": list(judged.confidence),
            "decision": pa.array([None] * n if decided is None else decided.decisions.tolist(), pa.string()),
            "outside_by": pa.array([None] * n if decided is None else decided.outside_names, pa.string()),
        }
    )
