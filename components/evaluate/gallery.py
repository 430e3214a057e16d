"""The worst mistakes, each with the picture and where its score came from."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import Dataset
from components.evaluate.metrics import Judged
from components.evaluate.slices import Frame
from serving.detector.detector import Detector
from serving.detector.heatmap import encode_png

SIDE_PX = 160


@dataclass(frozen=True)
class Mistake:
    """One misjudged image as the report shows it; pictures are `data:` URIs."""

    name: str
    origin: str
    probability: float
    picture: str
    heatmap: str


@dataclass(frozen=True)
class Gallery:
    """Worst first."""

    false_ai: list[Mistake]
    """Real photos called ai_generated."""
    false_real: list[Mistake]
    """Generated images called real."""


def build_gallery(dataset: Dataset, frame: Frame, judged: Judged, detector: Detector, size: int) -> Gallery:
    """The `size` most confident mistakes of each kind, with the Grad-CAM of the class that was wrongly said."""
    false_ai = _worst(judged.predicted & ~judged.positive, -judged.probabilities, size)
    false_real = _worst(~judged.predicted & judged.positive, judged.probabilities, size)
    files = _files(dataset, frame.split, {*false_ai, *false_real})

    def show(rows: Iterable[int]) -> list[Mistake]:
        return [_mistake(frame, row, float(judged.probabilities[row]), files[row], detector) for row in rows]

    return Gallery(show(false_ai), show(false_real))


def _worst(wrong: npt.NDArray[np.bool_], badness: npt.NDArray[np.float64], size: int) -> list[int]:
    rows = np.flatnonzero(wrong)
    return [int(row) for row in rows[np.argsort(badness[rows], kind="stable")][:size]]


def _files(dataset: Dataset, split: str, wanted: set[int]) -> dict[int, bytes]:
    if not wanted:
        return {}
    return {row: data for row, data in enumerate(dataset.images(split)) if row in wanted}


def _mistake(frame: Frame, row: int, probability: float, data: bytes, detector: Detector) -> Mistake:
    explained = detector.explain(data, side_px=SIDE_PX)
    origin = ", ".join(part for part in (frame.generator[row], frame.source[row]) if part)
    return Mistake(
        name=frame.name_of(row),
        origin=origin,
        probability=probability,
        picture=_data_uri(encode_png(explained.drawn.photo)),
        heatmap=_data_uri(explained.drawn.overlay),
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
