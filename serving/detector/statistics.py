"""What inputs and scores looked like when the model was judged: the baseline that drift is measured against."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import Field, ValidationError

from serving.detector.bundle import REFERENCE
from serving.detector.decision import CONFIDENCES, DecisionRule
from serving.detector.engine import Floats
from serving.detector.image import ImageInfo
from serving.detector.labels import LABELS
from serving.platform.errors import BundleError, one_line
from serving.platform.frozen import Frozen
from serving.platform.records import read_record

REFERENCE_SIZE: Final = 10_000
"""At most so many reference values are kept per signal; enough for a 1,000-image window by a wide margin."""

"""Room for every signal at its full size; a larger file is not read."""

DIGITS: Final = 5
"""Decimals of every kept value. Live values are rounded alike: a tie broken by rounding would look like drift."""


@dataclass(frozen=True, slots=True)
class InputQuality:
    """Cheap numbers about one file that move when ingestion changes."""

    log2_min_side: float
    log2_megapixels: float
    log2_aspect: float
    jpeg_quality: float | None
    format: str

    @classmethod
    def of(cls, info: ImageInfo) -> "InputQuality":
        """Quality numbers of a decoded file."""
        return cls(
            log2_min_side=math.log2(min(info.width, info.height)),
            log2_megapixels=math.log2(info.width * info.height / 1e6),
            log2_aspect=math.log2(info.width / info.height),
            jpeg_quality=info.jpeg_quality,
            format=info.format,
        )


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Values = Annotated[list[_Number], Field(max_length=REFERENCE_SIZE)]
_Counts = Annotated[dict[str, Annotated[int, Field(ge=0, le=2**53)]], Field(max_length=64)]


class Reference(Frozen):
    """`reference.json`: samples of each signal over held-out images, in matching order where lengths agree."""

    schema_version: int = 1
    n: int = Field(ge=1)
    logits: Annotated[_Values, Field(min_length=1)]
    prediction_counts: _Counts
    confidence_counts: _Counts
    mean_probability: _Number
    log2_min_side: _Values
    log2_megapixels: _Values
    log2_aspect: _Values
    jpeg_quality: _Values
    format_counts: _Counts


def build_reference(logits: Floats, rule: DecisionRule, qualities: Sequence[InputQuality], seed: int = 0) -> Reference:
    """Reference statistics of held-out images.

    Args:
        logits: raw logits, shape (n,).
        rule: the decision rule the model ships with.
        qualities: input quality of the same n images.
        seed: of the subsample taken when n exceeds `REFERENCE_SIZE`.
    """
    probabilities = rule.probabilities(logits)
    verdicts = [rule.verdict(float(p)) for p in probabilities]
    predictions = Counter(v.prediction for v in verdicts)
    confidences = Counter(v.confidence for v in verdicts)
    kept = list(range(len(logits)))
    if len(kept) > REFERENCE_SIZE:
        kept = sorted(np.random.default_rng(seed).choice(len(logits), REFERENCE_SIZE, replace=False).tolist())
    chosen = [qualities[i] for i in kept]
    return Reference(
        n=len(logits),
        logits=[round(float(logits[i]), DIGITS) for i in kept],
        prediction_counts={name: predictions[name] for name in LABELS},
        confidence_counts={name: confidences[name] for name in CONFIDENCES},
        mean_probability=float(probabilities.mean()),
        log2_min_side=[round(q.log2_min_side, DIGITS) for q in chosen],
        log2_megapixels=[round(q.log2_megapixels, DIGITS) for q in chosen],
        log2_aspect=[round(q.log2_aspect, DIGITS) for q in chosen],
        jpeg_quality=[round(q.jpeg_quality, DIGITS) for q in chosen if q.jpeg_quality is not None],
        format_counts=dict(sorted(Counter(q.format for q in qualities).items())),
    )


def read_reference(folder: Path) -> Reference:
    """Reference statistics of a verified bundle.

    Raises:
        BundleError: the file is missing, damaged or holds no distribution.
    """
    path = folder / REFERENCE
    try:
        return Reference.model_validate_json(read_record(path))
    except ValidationError as error:
        raise BundleError(f"{path}: damaged: {one_line(error)}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
