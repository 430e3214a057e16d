"""The judgement over a survey: offenders by name, classes, balance and shortcuts, each against its tolerance."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import SPLITS, TEST, TRAIN, UNSEEN, VAL
from components.verify_data.config import VerifyDataConfig
from components.verify_data.copies import Copies
from components.verify_data.duplicates import MAX_BUCKET, NearPairs, near_pairs
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
from components.verify_data.scratch import pieces, places, taken
from components.verify_data.shortcuts import audit
from serving.detector.labels import LABELS

KEPT_FIRST: Final = (TEST, UNSEEN, VAL, TRAIN)
"""Of two copies the one in the earlier split stays: the official test split is never thinned for train's sake."""


class Checked:
    """A survey with its groups of equal and nearly equal images found."""

    def __init__(self, survey: Survey, config: VerifyDataConfig) -> None:
        self.survey = survey
        self.config = config
        self.rows = len(survey.rows)
        self.copies = Copies(survey)
        self.pairs = self._pairs()

    def name(self, row: int) -> str:
        """What a person is told of a row."""
        return self.survey.name(row)

    def split(self, row: int) -> str:
        """Name of a row's split."""
        return SPLITS[self.survey.rows["split"][row]]

    def label(self, row: int) -> int:
        """Class id of a row."""
        return int(self.survey.rows["label"][row])

    def tally(self, codes: str, split: str = "") -> npt.NDArray[np.intp]:
        """How many rows (of a split) there are of each class and code of a field of `CODED`; shape (classes, codes)."""
        of, rows = len(self.survey.values[codes]), self.survey.rows
        found = np.zeros(len(LABELS) * of, np.intp)
        for piece in pieces(self.rows):
            known = rows[codes][piece] >= 0
            if split:
                known &= rows["split"][piece] == SPLITS.index(split)
            both = rows["label"][piece][known].astype(np.intp) * of + rows[codes][piece][known]
            found += np.bincount(both, minlength=len(found))
        return found.reshape(len(LABELS), of)

    def _pairs(self) -> NearPairs:
        """Near duplicates among one image of each set of equal pixels and split, as row numbers."""
        survey, config, first = self.survey, self.config, self.copies.first
        rows = places(self.rows, lambda piece: self.copies.compared[piece])
        hashes, mirrored = (taken(survey.rows[name], rows) for name in ("hash", "mirrored_hash"))
        found = near_pairs(
            hashes, mirrored, survey.thumbnails, rows, config.near_duplicate_bits, config.near_duplicate_levels
        )

        def of_rows(pairs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
            for end in ("left", "right"):
                pairs[end] = rows[pairs[end]]
            return np.asarray(pairs[first[pairs["left"]] != first[pairs["right"]]])

        return NearPairs.of(map(of_rows, found.pieces()), found.cut_short)


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
    shortcuts = audit(survey, lambda piece: survey.rows["split"][piece] != SPLITS.index(UNSEEN))
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
        duplicates_inside=_by_split(splits, checked.copies.surplus),
        near_duplicates_inside=_by_split(splits, _near_inside(checked)),
        shortcuts=shortcuts,
        problems=problems,
        warnings=warnings,
    )
    return findings, checked


def _offender(checked: Checked, kind: Kind, row: int, detail: str, other: int | None = None) -> Offender:
    name, split = checked.name(row), checked.split(row)
    return Offender(kind=kind, row=row, split=split, name=name, detail=detail, other=other)


def _corrupt(checked: Checked) -> list[Offender]:
    decoded = checked.survey.rows["decoded"]
    rows = places(checked.rows, lambda piece: ~decoded[piece]).tolist()
    return [_offender(checked, "corrupt", row, checked.survey.problem(row)) for row in rows]


def _declared_generated(checked: Checked) -> list[Offender]:
    """Rows labelled real whose file says the opposite: the label, or the file's history, is wrong."""
    names, rows = checked.survey.values["declared"], checked.survey.rows
    if "ai_generated" not in names:
        return []
    code, real = names.index("ai_generated"), LABELS.index("real")
    found = places(
        checked.rows,
        lambda piece: rows["decoded"][piece] & (rows["declared"][piece] == code) & (rows["label"][piece] == real),
    )
    detail = "is labelled real, but its file declares that AI generated it; see: aidetect inspect"
    return [_offender(checked, "declared_generated", row, detail) for row in found.tolist()]


def _label_conflicts(checked: Checked) -> list[Offender]:
    found = []
    for rows in checked.copies.mixed("label"):
        for row in rows.tolist():
            other = next(o for o in rows.tolist() if checked.label(o) != checked.label(row))
            mine, theirs = LABELS[checked.label(row)], LABELS[checked.label(other)]
            detail = f"is {mine} here and {theirs} as {_where(checked, other)}"
            found.append(_offender(checked, "label_conflict", row, detail, other))
    return found


def _exact_duplicates(checked: Checked) -> list[Offender]:
    found = []
    for rows in checked.copies.mixed("split"):
        kept = min(rows.tolist(), key=lambda row: (KEPT_FIRST.index(checked.split(row)), row))
        detail = f"same pixels as {_where(checked, kept)}"
        leaving = [row for row in rows.tolist() if checked.split(row) != checked.split(kept)]
        found += [_offender(checked, "exact_duplicate", row, detail, kept) for row in leaving]
    return found


def _near_duplicates(checked: Checked, known: set[int]) -> list[Offender]:
    found: dict[int, Offender] = {}
    splits = checked.survey.rows["split"]
    for pairs in checked.pairs.pieces():
        across = splits[pairs["left"]] != splits[pairs["right"]]
        for left, right, bits, mirrored in pairs[across].tolist():
            kept, row = sorted((left, right), key=lambda row: (KEPT_FIRST.index(checked.split(row)), row))
            if row in known or row in found or kept in known:
                continue
            how = "mirror image of" if mirrored else "re-encoded or resized copy of"
            detail = f"{how} {_where(checked, kept)} ({bits} of 64 hash bits differ)"
            found[row] = _offender(checked, "near_duplicate", row, detail, kept)
    return [found[row] for row in sorted(found)]


def _where(checked: Checked, row: int) -> str:
    return f"{checked.name(row)} in {checked.split(row)}"


def _by_split(splits: Mapping[str, SplitCounts], counts: npt.NDArray[np.intp]) -> dict[str, int]:
    return {name: int(counts[SPLITS.index(name)]) for name in splits}


def _near_inside(checked: Checked) -> npt.NDArray[np.intp]:
    """Pairs of near duplicates inside each split."""
    splits, counts = checked.survey.rows["split"], np.zeros(len(SPLITS), np.intp)
    for pairs in checked.pairs.pieces():
        left = splits[pairs["left"]]
        counts += np.bincount(left[left == splits[pairs["right"]]], minlength=len(SPLITS))
    return counts


def _counts(checked: Checked) -> dict[str, SplitCounts]:
    names = checked.survey.values["generator"]
    counts = {}
    for split in SPLITS:
        found = checked.tally("generator", split)
        if found.any():
            counts[split] = SplitCounts(
                rows=int(found.sum()),
                by_class=dict(zip(LABELS, found.sum(1).tolist(), strict=True)),
                by_generator={n: c for n, c in sorted(zip(names, found.sum(0).tolist(), strict=True)) if c},
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
