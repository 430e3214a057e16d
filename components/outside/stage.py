"""`aidetect evaluate --outside`: a labelled folder through the bundle and the audit of its traces."""

import os
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from components.artifacts.dataset import TEST
from components.evaluate.config import EvaluateConfig
from components.outside.evaluation import OutsideEvaluation, Tally, why_no_auc
from components.verify_data.inspection import inspect
from components.verify_data.measurements import Recorder
from components.verify_data.rows import Batch
from components.verify_data.shortcuts import audit
from components.verify_data.skipped import shown
from serving.detector.conclusion import Policy
from serving.detector.detector import Detector
from serving.detector.image import ImageLimits
from serving.detector.labels import LABELS, label_id
from serving.platform.errors import ImageRefusedError, SourceError, UnknownLabelError

MOST_PHOTOS: Final = 100_000
BATCH: Final = 32
"""Photos held at once."""


def evaluate_outside(
    folder: Path,
    detector: Detector,
    policy: Policy,
    config: EvaluateConfig,
    advance: Callable[[int], None] = lambda _n: None,
) -> OutsideEvaluation:
    """Judge every photo of a labelled folder.

    Args:
        folder: `{class}/**`, or `{split}/{class}/**`; classes by any known name.
        detector: the model.
        policy: how a deployment decides.
        config: draws and seed of the intervals.
        advance: told how many photos were done since the last call.

    Raises:
        SourceError: no class folders, no photos in them, or too many.
    """
    tally = Tally(detector.rule)
    with Recorder() as recorder:
        photos = _photos(folder)
        while group := list(islice(photos, BATCH)):
            names, labels = [shown(str(path)) for path, _ in group], [label for _, label in group]
            data = [_read(path) for path, _ in group]
            recorder.add(_as_batch(names, data, labels), inspect(data))
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
        survey = recorder.survey()
        shortcuts = tuple(audit(survey, np.array(survey.rows["label"], dtype=np.intp), survey.decoded))
    classes = tally.classes()
    refused = why_no_auc(classes, shortcuts)
    return OutsideEvaluation(
        folder=str(folder),
        bundle_digest=detector.manifest.digest,
        classes=classes,
        roc_auc=None if refused else tally.roc_auc(config),
        roc_auc_refused=refused,
        shortcuts=shortcuts,
    )


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


def _as_batch(names: list[str], data: list[bytes], labels: list[int]) -> Batch:
    unknown = [""] * len(names)
    return Batch(TEST, names, data, labels, unknown, unknown)
