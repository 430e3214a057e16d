"""What is found on a labelled folder: errors that look sure, what goes to review, whether an AUC means anything."""

from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.evaluation import Metric
from components.evaluate.config import EvaluateConfig
from components.evaluate.intervals import Counts, Mask, proportion
from components.evaluate.metrics import Judged, Ranking, ranked
from components.verify_data.findings import Shortcut
from serving.detector.conclusion import Decision
from serving.detector.decision import DecisionRule
from serving.detector.labels import LABELS
from serving.platform.frozen import Frozen

MOST_SHORTCUT_AUC: Final = 0.75
"""Where size, codec or metadata alone rank the classes better than this, a model's AUC says nothing of its pixels."""


class ClassFigures(Frozen):
    """What became of the photos of one class; shares are of those that were judged, None where none was."""

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


class OutsideEvaluation(Frozen):
    """A model on a folder."""

    folder: str
    bundle_digest: str
    classes: tuple[ClassFigures, ...]
    roc_auc: Metric | None
    roc_auc_refused: str
    """Why no AUC is told; empty where one is."""
    shortcuts: tuple[Shortcut, ...]
    """What trivial traces alone rank, the strongest first."""


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

    def classes(self) -> tuple[ClassFigures, ...]:
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

    def _of(self, label: int, judged: Judged) -> ClassFigures:
        rows: Mask = judged.positive if label else ~judged.positive
        units: Counts = judged.units[rows]
        decided = np.array(self._decisions, dtype=object)

        def share(hits: npt.NDArray[np.bool_]) -> Metric | None:
            return proportion(hits[rows], units)

        by_score = np.array([confidence == "high" for confidence in judged.confidence], dtype=bool)
        other = "likely_real" if label else "likely_ai"
        return ClassFigures(
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


def why_no_auc(classes: tuple[ClassFigures, ...], shortcuts: tuple[Shortcut, ...]) -> str:
    """The reason not to tell an AUC; empty where there is none."""
    if len(classes) < len(LABELS):
        return f"the folder has {classes[0].label} photos only"
    if not shortcuts:
        return "a class has under 20 judged photos"
    strongest = shortcuts[0]
    if strongest.auc > MOST_SHORTCUT_AUC:
        return (
            f"{strongest.feature} without any pixel ranks the classes with AUC {strongest.auc:.2f} "
            f"(limit {MOST_SHORTCUT_AUC:g}): take real photos of the same sizes, codecs and ways as the generated ones"
        )
    return ""
