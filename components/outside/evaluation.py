"""What is found on a labelled folder, and whether an AUC on it means anything."""

from typing import Final

from components.artifacts.evaluation import Metric, OutsideClass
from components.verify_data.findings import Shortcut
from serving.detector.labels import LABELS
from serving.platform.frozen import Frozen

MOST_SHORTCUT_AUC: Final = 0.75
"""Where size, codec or metadata alone rank the classes better than this, a model's AUC says nothing of its pixels."""


class OutsideEvaluation(Frozen):
    """A model on a folder."""

    folder: str
    bundle_digest: str
    classes: tuple[OutsideClass, ...]
    roc_auc: Metric | None
    roc_auc_refused: str
    """Why no AUC is told; empty where one is."""
    shortcuts: tuple[Shortcut, ...]
    """What trivial traces alone rank, the strongest first."""


def why_no_auc(classes: tuple[OutsideClass, ...], shortcuts: tuple[Shortcut, ...]) -> str:
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
