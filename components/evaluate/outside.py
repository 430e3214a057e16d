"""A labelled folder that has nothing to do with the training: errors that look sure, and what goes to review."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.evaluation import Metric, OutsideClass, OutsideFigures
from components.evaluate.config import EvaluateConfig
from components.evaluate.intervals import Counts, Mask, proportion
from components.evaluate.metrics import Judged, Ranking, ranked
from components.evaluate.progress import progress_bar
from components.platform.cloud_storage import on_disk
from serving.detector.conclusion import Decision, Policy
from serving.detector.decision import DecisionRule
from serving.detector.detector import BY_THE_BUNDLE, Detector
from serving.detector.image import ImageLimits
from serving.detector.labels import LABELS, label_id
from serving.platform.errors import ImageRefusedError, SourceError, UnknownLabelError

MOST_PHOTOS: Final = 100_000
BATCH: Final = 32
"""Photos held at once."""

Watch = Callable[[Sequence[Path], list[bytes], list[int]], None]
"""Told of every group of photos: their paths, bytes and labels."""


class Tally:
    """One line for each judged photo; everything else is counted at the end."""

    def __init__(self, rule: DecisionRule) -> None:
        self._rule = rule
        self._logits: list[float] = []
        self._labels: list[int] = []
        self._decisions: list[Decision] = []
        self._high: list[bool] = []
        self._outside: list[bool] = []
        self._refused = [0, 0]

    def add(self, label: int, logit: float, decision: Decision, *, high: bool, outside: bool) -> None:
        """Take one judged photo; `high`: its confidence as answered."""
        self._labels.append(label)
        self._logits.append(logit)
        self._decisions.append(decision)
        self._high.append(high)
        self._outside.append(outside)

    def refuse(self, label: int) -> None:
        """Take a photo without a verdict."""
        self._refused[label] += 1

    def classes(self) -> tuple[OutsideClass, ...]:
        """Figures of each class that the folder has."""
        judged = self._judged()
        return tuple(
            self._of(label, judged) for label in range(len(LABELS)) if label in self._labels or self._refused[label]
        )

    def roc_auc(self, config: EvaluateConfig) -> Metric:
        """With its bootstrap interval; both classes have to be there."""
        return ranked(Ranking(self._judged(), config.calibration_bins), config)["roc_auc"]

    def _judged(self) -> Judged:
        positive = np.array(self._labels, dtype=np.int64) == 1
        return Judged.of(positive, np.array(self._logits, dtype=np.float64), self._rule)

    def _of(self, label: int, judged: Judged) -> OutsideClass:
        rows: Mask = judged.positive if label else ~judged.positive
        units: Counts = judged.units[rows]
        decided = np.array(self._decisions, dtype=object)

        def share(hits: npt.NDArray[np.bool_]) -> Metric | None:
            return proportion(hits[rows], units)

        by_score = np.array([confidence == "high" for confidence in judged.confidence], dtype=bool)
        other = "likely_real" if label else "likely_ai"
        return OutsideClass(
            label=LABELS[label],
            n=int(rows.sum()),
            refused=self._refused[label],
            wrong=share(~judged.right),
            confident_errors=share(~judged.right & np.array(self._high, dtype=bool)),
            confident_errors_by_score=share(~judged.right & by_score),
            wrong_decisions=share(np.asarray(decided == other, dtype=bool)),
            to_review=share(np.asarray(decided == "review", dtype=bool)),
            outside_domain=share(np.array(self._outside, dtype=bool)),
        )


def judge_outside(
    place: str,
    detector: Detector,
    policy: Policy = BY_THE_BUNDLE,
    advance: Callable[[int], None] = lambda _n: None,
    watch: Watch = lambda _paths, _data, _labels: None,
) -> Tally:
    """Judge every photo of a labelled folder.

    Args:
        place: `{class}/**`, or `{split}/{class}/**`, in a folder or under `gs://`; classes by any known name.
        detector: the model.
        policy: how a deployment decides.
        advance: told how many photos were done since the last call.
        watch: told of all that was read.

    Raises:
        SourceError: no class folders, no photos in them, or too many.
        StageError: nothing at `gs://`, or Google refused.
    """
    tally = Tally(detector.rule)
    with on_disk(place, MOST_PHOTOS) as folder:
        photos = _photos(folder)
        while group := list(islice(photos, BATCH)):
            data, labels = [_read(path) for path, _ in group], [label for _, label in group]
            watch([path for path, _ in group], data, labels)
            for label, outcome in zip(labels, detector.judge_all(data, policy=policy), strict=True):
                if isinstance(outcome, ImageRefusedError):
                    tally.refuse(label)
                    continue
                found = outcome.conclusion
                tally.add(
                    label,
                    outcome.logit,
                    found.decision,
                    high=outcome.verdict.confidence == "high",
                    outside=not found.domain.inside,
                )
            advance(len(group))
    return tally


def outside_figures(place: str, detector: Detector) -> OutsideFigures:
    """What an evaluation keeps of a labelled folder, by the bundle's own thresholds.

    Raises:
        SourceError: no class folders, no photos in them, or too many.
        StageError: nothing at `gs://`, or Google refused.
    """
    with progress_bar("Scoring photos outside the data", None) as advance:
        return OutsideFigures(place=place, classes=judge_outside(place, detector, advance=advance).classes())


def _photos(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every regular file below a class folder with its label, in order of names; links are not followed."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no folder there")
    classes = sorted(_class_folders(folder))
    if not classes:
        expected = " or ".join(LABELS)
        raise SourceError(
            f"{folder}: no folder of a class there; expected {expected} (or fake, ai) with photos in them"
        )
    count = 0
    for path, label in classes:
        for below, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(below, name)
                if not stat.S_ISREG(file.lstat().st_mode):
                    continue
                count += 1
                if count > MOST_PHOTOS:
                    raise SourceError(f"{folder}: holds more than {MOST_PHOTOS:,} files; take a sample of them")
                yield file, label
    if not count:
        raise SourceError(f"{folder}: its class folders hold no photos")


def _class_folders(folder: Path, depth: int = 2) -> Iterator[tuple[Path, int]]:
    for path in folder.iterdir():
        if not path.is_dir() or path.is_symlink():
            continue
        try:
            yield path, label_id(path.name)
        except UnknownLabelError:
            if depth > 1:
                yield from _class_folders(path, depth - 1)


def _read(path: Path) -> bytes:
    """What the server would take of a file, and one byte more where it is too large."""
    with path.open("rb") as file:
        return file.read(ImageLimits.max_bytes + 1)
