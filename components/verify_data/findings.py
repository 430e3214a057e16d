"""What verification found: offenders by name, and whether there are more of them than tolerated."""

from typing import Final, Literal

from components.artifacts.dataset import DatasetSummary
from serving.platform.frozen import Frozen

Kind = Literal["corrupt", "label_conflict", "exact_duplicate", "near_duplicate", "declared_generated"]

KINDS: Final[tuple[Kind, ...]] = (
    "corrupt",
    "label_conflict",
    "exact_duplicate",
    "near_duplicate",
    "declared_generated",
)
TITLES: Final[dict[Kind, str]] = {
    "corrupt": "images that do not decode",
    "label_conflict": "images under both labels",
    "exact_duplicate": "exact duplicates across splits",
    "near_duplicate": "near duplicates across splits",
    "declared_generated": "images labelled real that declare themselves generated",
}
TOLERANCES: Final[dict[Kind, str]] = {
    "corrupt": "max_corrupt_share",
    "label_conflict": "max_label_conflict_share",
    "exact_duplicate": "max_exact_duplicate_share",
    "near_duplicate": "max_near_duplicate_share",
    "declared_generated": "max_declared_generated_share",
}
NAMED_IN_MESSAGE: Final = 3


class Offender(Frozen):
    """One row that may not go on."""

    kind: Kind
    row: int
    """Position in reading order."""
    split: str
    name: str
    detail: str
    """Why, naming the other image where there is one."""
    other: int | None = None
    """Position of that image in reading order."""


class Shortcut(Frozen):
    """How well one format trace, or all together, tells the classes apart."""

    feature: str
    auc: float
    """Cross-fitted area under the ROC curve, 0.5 is chance."""


class SplitCounts(Frozen):
    """Rows of one split as read."""

    rows: int
    by_class: dict[str, int]
    by_generator: dict[str, int]


class Skipped(Frozen):
    """Files of a source that are no images, by kind."""

    kind: str
    count: int
    names: list[str]
    """The first of them."""


class Findings(Frozen):
    """Everything the checks say."""

    rows: int
    splits: dict[str, SplitCounts]
    offenders: list[Offender]
    duplicates_inside: dict[str, int]
    """Split -> surplus exact copies inside it; reported, kept."""
    near_duplicates_inside: dict[str, int]
    """Split -> pairs of near duplicates inside it; reported, kept."""
    shortcuts: list[Shortcut]
    """Strongest first; `all together` among them."""
    problems: list[str]
    """Sentences that stop the run; empty: the data may be used."""
    warnings: list[str]
    skipped: list[Skipped] = []
    """Files that are no images: not judged, not counted as rows."""
    cut: list[str] = []
    """What was cut from images that came without splits."""

    def count(self, kind: Kind) -> int:
        """Offenders of one kind."""
        return sum(offender.kind == kind for offender in self.offenders)

    @property
    def shortcut_auc(self) -> float:
        """The strongest shortcut, 0.5 when none could be measured."""
        return max((shortcut.auc for shortcut in self.shortcuts), default=0.5)

    def figures(self, summary: DatasetSummary) -> dict[str, float]:
        """Numbers for the pipeline's metrics panel."""
        return {
            "rows": float(self.rows),
            "quarantined": float(summary.quarantined),
            "shortcut_auc": round(self.shortcut_auc, 4),
            **{f"rows_{name}": float(split.rows) for name, split in summary.splits.items()},
            **{kind: float(self.count(kind)) for kind in KINDS},
        }
