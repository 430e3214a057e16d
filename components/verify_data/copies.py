"""Images of equal pixels: found by their digests, a range of them at a time."""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import SPLITS
from components.verify_data.measurements import Survey
from components.verify_data.scratch import Rows, by_leading_bytes, filled, scratch

FLAT_LEVELS: Final = 3.0
"""Pictures of less contrast are all near duplicates of each other; comparing them says nothing."""

Attribute = Literal["split", "label"]


class Copies:
    """The sets of equal pixels of a survey of n rows; a row that does not decode stands alone."""

    def __init__(self, survey: Survey) -> None:
        rows = survey.rows
        self.by_digest = by_leading_bytes(
            len(rows), lambda piece: np.array(rows["pixel_sha256"][piece]), lambda piece: rows["decoded"][piece]
        )
        """Rows that decode, in ascending ranges of their digests."""
        self.first = filled(np.intp, len(rows), lambda piece: np.arange(piece.start, piece.stop))
        """The first row with the same pixels as each row, shape (n,); mapped."""
        self.compared: npt.NDArray[np.bool_] = scratch(np.bool_, len(rows))
        """One row of each set of equal pixels and split, where they are not flat, shape (n,); mapped."""
        self.surplus = np.zeros(len(SPLITS), np.intp)
        """Copies inside each split beyond the first."""
        self._mixed: dict[Attribute, list[Rows]] = {"label": [], "split": []}
        for some in self.by_digest:
            self._look(survey, some)

    def _look(self, survey: Survey, rows: Rows) -> None:
        """Find the sets of equal pixels among the rows, ascending, of one range of digests."""
        _, at, inverse = np.unique(survey.digests(rows), return_index=True, return_inverse=True)
        groups = rows[at[inverse]]
        self.first[rows] = groups
        splits = survey.rows["split"][rows].astype(np.intp)
        keys = groups * len(SPLITS) + splits
        distinct = np.unique(keys) % len(SPLITS)
        self.surplus += np.bincount(splits, minlength=len(SPLITS)) - np.bincount(distinct, minlength=len(SPLITS))
        eligible = np.flatnonzero(survey.rows["contrast"][rows] >= FLAT_LEVELS)
        _, first = np.unique(keys[eligible], return_index=True)
        self.compared[rows[eligible[first]]] = True
        if len(at) < len(rows):
            self._mixed["split"] += _mixed(rows, groups, splits)
            self._mixed["label"] += _mixed(rows, groups, survey.rows["label"][rows].astype(np.intp))

    def mixed(self, attribute: Attribute) -> list[Rows]:
        """Rows of each set of equal pixels in which `attribute` takes more than one value, by their first."""
        return sorted(self._mixed[attribute], key=lambda rows: int(rows[0]))


def _mixed(rows: Rows, groups: Rows, attribute: Rows) -> list[Rows]:
    order = np.lexsort((attribute, groups))
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(ordered)]
    differ = attribute[order[starts]] != attribute[order[ends - 1]]
    return [np.sort(rows[order[a:b]]) for a, b in zip(starts[differ].tolist(), ends[differ].tolist(), strict=True)]
