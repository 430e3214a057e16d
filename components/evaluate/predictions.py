"""`predictions.parquet`: every verdict behind the figures, so that each of them can be recomputed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.evaluation import CANDIDATE as CANDIDATE
from components.artifacts.evaluation import PREDICTIONS_PARQUET
from components.evaluate.metrics import Judged
from components.evaluate.slices import Frame
from serving.detector.labels import LABELS

CHAMPION = "champion"


@dataclass(frozen=True)
class ModelVerdicts:
    """What one model said of one split."""

    model: str
    """`candidate` or `champion`."""
    frame: Frame
    judged: Judged


def write_predictions(folder: Path, verdicts: Iterable[ModelVerdicts]) -> None:
    """One row for each image and model.

    Args:
        folder: the evaluation folder.
        verdicts: of each model on each split.
    """
    tables = [_table(part.model, part.frame, part.judged) for part in verdicts]
    pq.write_table(pa.concat_tables(tables), folder / PREDICTIONS_PARQUET, compression="zstd")


def _table(model: str, frame: Frame, judged: Judged) -> pa.Table:
    n = len(frame)
    return pa.table(
        {
            "model": pa.array([model] * n).dictionary_encode(),
            "split": pa.array([frame.split] * n).dictionary_encode(),
            "row": pa.array(range(n), pa.int64()),
            "path": frame.path,
            "label": [LABELS[int(positive)] for positive in judged.positive],
            "generator": frame.generator,
            "source": frame.source,
            "pixel_sha256": frame.pixel_sha256,
            "logit": judged.logits,
            "probability": judged.probabilities,
            "prediction": [LABELS[int(predicted)] for predicted in judged.predicted],
            "confidence": list(judged.confidence),
        }
    )
