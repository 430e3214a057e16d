"""The judgement over a survey: offenders by name, classes, balance and shortcuts, each against its tolerance."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import SPLITS, TEST, TRAIN, UNSEEN, VAL
from components.verify_data.config import VerifyDataConfig
from components.verify_data.duplicates import MAX_BUCKET, NearPairs, equal_groups, near_pairs
from components.verify_data.findings import (
    KINDS,
    NAMED_IN_MESSAGE,
    TITLES,
    TOLERANCES,
    Findings,
    Kind,
    Offender,
    Shortcut,
    SplitCounts,
)
from components.verify_data.measurements import Survey
from components.verify_data.shortcuts import audit
from serving.detector.labels import LABELS

KEPT_FIRST: Final = (TEST, UNSEEN, VAL, TRAIN)
"""Of two copies the one in the earlier split stays: the official test split is never thinned for train's sake."""
_FLAT_LEVELS: Final = 3.0
"""Pictures of less contrast are all near duplicates of each other; comparing them says nothing."""


class Checked:
    """A survey with its groups of equal and nearly equal images found."""

    def __init__(self, survey: Survey, config: VerifyDataConfig) -> None:
        self.survey = survey
        self.config = config
        self.rows = len(survey.rows)
        self.split_ids = np.array(survey.rows["split"], np.intp)
        self.labels = np.array(survey.rows["label"], np.intp)
        self.decoded = survey.decoded
        self.groups = self._groups()
        self.pairs = self._pairs()

    def name(self, row: int) -> str:
        """What a person is told of a row."""
        return self.survey.name(row)

    def split(self, row: int) -> str:
        """Name of a row's split."""
        return SPLITS[self.split_ids[row]]

    def _groups(self) -> npt.NDArray[np.intp]:
        """The first row with the same pixels as each row; a row that does not decode stands alone."""
        groups = np.arange(self.rows)
        rows = np.flatnonzero(self.decoded)
        groups[rows] = equal_groups(self.survey.rows["pixel_sha256"], rows)
        return groups

    def _pairs(self) -> NearPairs:
        """Near duplicates among one image of each set of equal pixels and split, as row numbers."""
        eligible = np.flatnonzero(self.decoded & (self.survey.rows["contrast"] >= _FLAT_LEVELS))
        _, first = np.unique(self.groups[eligible] * len(SPLITS) + self.split_ids[eligible], return_index=True)
        rows = eligible[np.sort(first)]
        found = near_pairs(
            self.survey.rows["hash"][rows],
            self.survey.rows["mirrored_hash"][rows],
            self.survey.thumbnails,
            rows,
            self.config.near_duplicate_bits,
            self.config.near_duplicate_levels,
        )
        left, right = rows[found.left], rows[found.right]
        distinct = self.groups[left] != self.groups[right]
        return NearPairs(
            left[distinct], right[distinct], found.bits[distinct], found.mirrored[distinct], found.cut_short
        )


def check(survey: Survey, config: VerifyDataConfig) -> tuple[Findings, Checked]:
    """Judge a survey. Never raises for bad data: what stops the run stands in `Findings.problems`."""
    checked = Checked(survey, config)
    offenders = [
        *_corrupt(checked),
        *_declared_generated(checked),
        *_label_conflicts(checked),
        *_exact_duplicates(checked),
    ]
    offenders += _near_duplicates(checked, {offender.row for offender in offenders})
    splits = _counts(checked)
    shortcuts = audit(survey, checked.labels, checked.decoded & (checked.split_ids != SPLITS.index(UNSEEN)))
    problems = _beyond_tolerance(offenders, checked.rows, config)
    warnings: list[str] = []
    if checked.pairs.cut_short:
        warnings.append(
            f"more than {MAX_BUCKET:,} pictures are almost equal; each was compared with {MAX_BUCKET:,} of them, so "
            "near duplicates may be missing from the lists"
        )
    _judge_shortcuts(shortcuts, config, problems, warnings)
    findings = Findings(
        rows=checked.rows,
        splits=splits,
        offenders=offenders,
        duplicates_inside=_duplicates_inside(checked),
        near_duplicates_inside=_near_inside(checked),
        shortcuts=shortcuts,
        problems=problems,
        warnings=warnings,
    )
    return findings, checked


def _offender(checked: Checked, kind: Kind, row: int, detail: str, other: int | None = None) -> Offender:
    name, split = checked.name(row), checked.split(row)
    return Offender(kind=kind, row=row, split=split, name=name, detail=detail, other=other)


def _corrupt(checked: Checked) -> list[Offender]:
    rows = np.flatnonzero(~checked.decoded).tolist()
    return [_offender(checked, "corrupt", row, checked.survey.problem(row)) for row in rows]


def _declared_generated(checked: Checked) -> list[Offender]:
    """Rows labelled real whose file says the opposite: the label, or the file's history, is wrong."""
    names = checked.survey.values["declared"]
    if "ai_generated" not in names:
        return []
    declared = checked.survey.rows["declared"] == names.index("ai_generated")
    rows = np.flatnonzero(checked.decoded & declared & (checked.labels == LABELS.index("real"))).tolist()
    detail = "is labelled real, but its file declares that AI generated it; see: aidetect inspect"
    return [_offender(checked, "declared_generated", row, detail) for row in rows]


def _shared_groups(checked: Checked, attribute: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    """Rows of each set of equal pixels in which `attribute` takes more than one value."""
    order = np.lexsort((attribute, checked.groups))
    groups = checked.groups[order]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    ends = np.r_[starts[1:], len(groups)]
    mixed = attribute[order[starts]] != attribute[order[ends - 1]]
    return [np.sort(order[a:b]) for a, b in zip(starts[mixed].tolist(), ends[mixed].tolist(), strict=True)]


def _label_conflicts(checked: Checked) -> list[Offender]:
    found = []
    for rows in _shared_groups(checked, checked.labels):
        for row in rows.tolist():
            other = next(o for o in rows.tolist() if checked.labels[o] != checked.labels[row])
            mine, theirs = LABELS[checked.labels[row]], LABELS[checked.labels[other]]
            detail = f"is {mine} here and {theirs} as {_where(checked, other)}"
            found.append(_offender(checked, "label_conflict", row, detail, other))
    return found


def _exact_duplicates(checked: Checked) -> list[Offender]:
    found = []
    for rows in _shared_groups(checked, checked.split_ids):
        kept = min(rows.tolist(), key=lambda row: (KEPT_FIRST.index(checked.split(row)), row))
        detail = f"same pixels as {_where(checked, kept)}"
        leaving = [row for row in rows.tolist() if checked.split(row) != checked.split(kept)]
        found += [_offender(checked, "exact_duplicate", row, detail, kept) for row in leaving]
    return found


def _near_duplicates(checked: Checked, known: set[int]) -> list[Offender]:
    found: dict[int, Offender] = {}
    pairs = checked.pairs
    across = np.flatnonzero(checked.split_ids[pairs.left] != checked.split_ids[pairs.right])
    for i in across.tolist():
        couple = (int(pairs.left[i]), int(pairs.right[i]))
        kept, row = sorted(couple, key=lambda row: (KEPT_FIRST.index(checked.split(row)), row))
        if row in known or row in found or kept in known:
            continue
        how = "mirror image of" if pairs.mirrored[i] else "re-encoded or resized copy of"
        detail = f"{how} {_where(checked, kept)} ({pairs.bits[i]} of 64 hash bits differ)"
        found[row] = _offender(checked, "near_duplicate", row, detail, kept)
    return [found[row] for row in sorted(found)]


def _where(checked: Checked, row: int) -> str:
    return f"{checked.name(row)} in {checked.split(row)}"


def _duplicates_inside(checked: Checked) -> dict[str, int]:
    keys = np.unique(checked.groups * len(SPLITS) + checked.split_ids)
    rows = np.bincount(checked.split_ids, minlength=len(SPLITS))
    distinct = np.bincount(keys % len(SPLITS), minlength=len(SPLITS))
    return {name: int(rows[i] - distinct[i]) for i, name in enumerate(SPLITS) if rows[i]}


def _near_inside(checked: Checked) -> dict[str, int]:
    pairs = checked.pairs
    inside = checked.split_ids[pairs.left] == checked.split_ids[pairs.right]
    counts = np.bincount(checked.split_ids[pairs.left[inside]], minlength=len(SPLITS))
    rows = np.bincount(checked.split_ids, minlength=len(SPLITS))
    return {name: int(counts[i]) for i, name in enumerate(SPLITS) if rows[i]}


def _counts(checked: Checked) -> dict[str, SplitCounts]:
    names, codes = checked.survey.values["generator"], checked.survey.rows["generator"]
    counts = {}
    for i, split in enumerate(SPLITS):
        rows = np.flatnonzero(checked.split_ids == i)
        if len(rows):
            found = np.bincount(codes[rows], minlength=len(names)).tolist()
            by_class = np.bincount(checked.labels[rows], minlength=len(LABELS))
            counts[split] = SplitCounts(
                rows=len(rows),
                by_class=dict(zip(LABELS, by_class.tolist(), strict=True)),
                by_generator={n: c for n, c in sorted(zip(names, found, strict=True)) if c},
            )
    return counts


def _beyond_tolerance(offenders: Sequence[Offender], rows: int, config: VerifyDataConfig) -> list[str]:
    problems = []
    for kind in KINDS:
        found = [offender for offender in offenders if offender.kind == kind]
        allowed = getattr(config, TOLERANCES[kind]) * rows
        if len(found) > allowed:
            named = "; ".join(f"{o.name}: {o.detail}" for o in found[:NAMED_IN_MESSAGE])
            more = f"; and {len(found) - NAMED_IN_MESSAGE} more" if len(found) > NAMED_IN_MESSAGE else ""
            problems.append(f"{len(found)} {TITLES[kind]} ({TOLERANCES[kind]} allows {int(allowed)}): {named}{more}")
    return problems


def judge_classes(
    counts: dict[str, dict[str, int]], cut: set[str], config: VerifyDataConfig
) -> tuple[list[str], list[str]]:
    """Problems and warnings of the numbers of images that each split ends with.

    Args:
        counts: split -> class -> images that go into it.
        cut: splits that were cut here, so that advice fits.
        config: what is enough.
    """
    problems: list[str] = []
    warnings: list[str] = []
    absent = [name for name in LABELS if counts and not any(found[name] for found in counts.values())]
    if absent and cut:
        return [f"no {' and no '.join(absent)} images at all; both classes are needed"], []
    for split in (TRAIN, VAL, TEST):
        if split not in counts:
            continue
        floor = max(1, config.min_rows // 10) if split == VAL else config.min_rows
        by_class = counts[split]
        for name, rows in by_class.items():
            if rows == 0 and split in cut:
                problems.append(f"{split}: no {name} images could be cut: too few different pictures or sources")
            elif rows == 0:
                problems.append(f"{split}: no {name} images; both classes are needed")
            elif rows < floor:
                advice = "; bring more or cut other shares" if cut - {VAL} else ""
                problems.append(f"{split}: only {rows} {name} images, at least {floor} are needed (min_rows){advice}")
        fewest, most = min(by_class.values()), max(by_class.values())
        if fewest and most / fewest > config.max_imbalance:
            sentence = (
                f"{split}: {most / fewest:.1f} images of one class for each of the other (max_imbalance "
                f"{config.max_imbalance:g})"
            )
            (problems if config.on_imbalance == "fail" else warnings).append(sentence)
    return problems, warnings


def _judge_shortcuts(
    shortcuts: Sequence[Shortcut], config: VerifyDataConfig, problems: list[str], warnings: list[str]
) -> None:
    beyond = [shortcut for shortcut in shortcuts if shortcut.auc > config.max_shortcut_auc]
    if beyond:
        named = ", ".join(f"{shortcut.feature} {shortcut.auc:.3f}" for shortcut in beyond)
        sentence = (
            f"format traces alone tell the classes apart (AUC: {named}; max_shortcut_auc {config.max_shortcut_auc:g}): "
            "encode both classes alike, or the model learns the file format"
        )
        (problems if config.on_shortcut == "fail" else warnings).append(sentence)
