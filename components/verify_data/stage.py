"""The stage: survey, judge, report, pack. A folder gets its `dataset.json` only when everything before went well."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import (
    DATASET_JSON,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    DatasetSummary,
    write_summary,
)
from components.verify_data.checks import Checked, check, judge_classes
from components.verify_data.config import VerifyDataConfig
from components.verify_data.cutting import LINK, SourceColumn, cut_splits, cut_told, linked
from components.verify_data.findings import Findings
from components.verify_data.layout import NONE, Cut, Reading
from components.verify_data.pack import QUARANTINE, Spool, fingerprint, summarise
from components.verify_data.progress import progress
from components.verify_data.report import Gallery, write_report
from components.verify_data.scratch import Appended, filled, pieces, places, scratch, taken
from components.verify_data.skipped import UNREADABLE, sentence
from components.verify_data.sources import Source, open_source
from components.verify_data.survey import Sink, survey
from components.verify_data.writing import alone, refuse_used, remove
from serving.detector.labels import LABELS
from serving.platform.errors import StageError


def verify(
    uri: str, config: VerifyDataConfig, report: Path | None = None, reading: Reading | None = None
) -> tuple[Findings, DatasetSummary]:
    """Check a dataset without writing it: what a run would find, and what it would pack.

    The findings are returned whether or not they stop a run (`Findings.problems`).

    Raises:
        StageError: nothing readable at `uri`.
    """
    gallery = Gallery()
    judged = _judged(open_source(uri, reading), config, [gallery], reading or Reading())
    if report is not None:
        write_report(report, uri, judged.findings, judged.checked, gallery)
    return judged.findings, _summary(uri, judged)


def verify_and_pack(
    uri: str,
    config: VerifyDataConfig,
    dataset: Path,
    report: Path,
    reading: Reading | None = None,
    fresh: bool = False,
) -> tuple[Findings, DatasetSummary]:
    """Check every image of a dataset and pack what passed.

    Args:
        uri: folder, table, `gs://BUCKET/PREFIX` or `hf://DATASET`.
        config: tolerances.
        dataset: folder to write; it gets `dataset.json` last of all.
        report: HTML page to write, also when the run is refused.
        reading: class names of one's own, and splits to cut; None: the source brings all.
        fresh: refuse a folder that holds a dataset, or anything else of a person's; else it is written over.

    Raises:
        StageError: nothing readable at `uri` (then nothing is written), or more offenders than tolerated. The report
            and `quarantine.parquet` stay; no split and no `dataset.json` is left. Or another process packs there.
    """
    source = open_source(uri, reading)
    with alone(dataset):
        if fresh:
            refuse_used(dataset)
        try:
            return _packed(uri, source, config, dataset, report, reading or Reading())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.strerror == os.strerror(error.errno):
                raise
            # of a file that Arrow writes, and its text names no place
            raise OSError(error.errno, os.strerror(error.errno), str(dataset)) from error


def _packed(
    uri: str, source: Source, config: VerifyDataConfig, dataset: Path, report: Path, reading: Reading
) -> tuple[Findings, DatasetSummary]:
    remove(dataset, (*SPLITS, QUARANTINE))
    (dataset / DATASET_JSON).unlink(missing_ok=True)
    with Spool(dataset, config.file_bytes) as spool:
        gallery = Gallery()
        judged = _judged(source, config, [spool, gallery], reading)
        findings = judged.findings
        write_report(report, uri, findings, judged.checked, gallery)
        with _all_or_nothing(dataset):
            spool.deal(judged.targets, findings.offenders)
            if findings.problems:
                # too few images may be those that nobody could look at
                unread = sentence(entry for entry in findings.skipped if UNREADABLE in entry.kind)
                told = " | ".join([*findings.problems, *filter(None, [unread])])
                raise StageError(f"{uri}: {told} - full list: {report}")
            summary = _summary(uri, judged)
            write_summary(dataset, summary)
    return findings, summary


@contextmanager
def _all_or_nothing(dataset: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove(dataset, SPLITS)
        raise


@dataclass(frozen=True, slots=True)
class _Judged:
    """A source that was read and judged."""

    checked: Checked
    findings: Findings
    targets: npt.NDArray[np.int8]
    """Split each row goes to, by number; -1 for quarantine; mapped."""
    reading: Reading


def _judged(source: Source, config: VerifyDataConfig, sinks: Sequence[Sink], reading: Reading) -> _Judged:
    """Read everything, find what may not go on, deal out the splits, and judge what each of them then holds."""
    column = SourceColumn()
    cuts = reading.cut.test is not None or reading.cut.val is not None
    watched = [*sinks, column] if cuts and reading.source != NONE else sinks
    with progress("verify_data", None if config.limit else source.rows) as advance:
        surveyed = survey(source, config.workers, config.limit, watched, advance)
    findings, checked = check(surveyed, config)
    targets, told = _dealt(checked, findings, config, reading.cut, column)
    held = _held(checked, targets)
    counts = {
        name: dict(zip(LABELS, held[i].tolist(), strict=True))
        for i, name in enumerate(SPLITS)
        if held[i].any() or name in findings.splits or name in told
    }
    problems, warnings = judge_classes(counts, set(told), config)
    skipped = source.skipped
    update = {
        "problems": [*findings.problems, *problems],
        "warnings": [*findings.warnings, *warnings, *filter(None, [sentence(skipped)])],
        "skipped": skipped,
        "cut": cut_told(told, counts, column.count) if cuts else [],
    }
    return _Judged(checked, findings.model_copy(update=update), targets, reading)


def _held(checked: Checked, targets: npt.NDArray[np.int8]) -> npt.NDArray[np.intp]:
    """Images of each class in each split, shape (splits, classes)."""
    labels, counts = checked.survey.rows["label"], np.zeros(len(SPLITS) * len(LABELS), np.intp)
    for piece in pieces(checked.rows):
        stays = targets[piece] >= 0
        both = targets[piece][stays].astype(np.intp) * len(LABELS) + labels[piece][stays]
        counts += np.bincount(both, minlength=len(counts))
    return counts.reshape(len(SPLITS), len(LABELS))


def _dealt(
    checked: Checked, findings: Findings, config: VerifyDataConfig, cut: Cut, column: SourceColumn
) -> tuple[npt.NDArray[np.int8], dict[str, float]]:
    """Split each row goes to, -1 for quarantine, and the splits that were cut with the share that each was to get."""
    survey = checked.survey
    targets = filled(np.int8, checked.rows, lambda piece: survey.rows["split"][piece])
    targets[[offender.row for offender in findings.offenders]] = -1
    shares = {name: share for name, share in ((TEST, cut.test), (VAL, cut.val)) if share is not None}
    if VAL not in findings.splits and VAL not in shares:
        shares[VAL] = config.val_fraction * (1 - shares.get(TEST, 0.0))
    train = places(checked.rows, lambda piece: targets[piece] == SPLITS.index(TRAIN))
    if not shares or not len(train):
        return targets, shares
    position = scratch(np.intp, checked.rows)
    position[:] = -1
    for piece in pieces(len(train)):
        position[train[piece]] = np.arange(piece.start, piece.stop)
    links = Appended(LINK)
    for ends in chain(checked.pairs.pieces(), column.links()):
        pair = (position[ends["left"]], position[ends["right"]])
        links.add(linked(*pair)[(pair[0] >= 0) & (pair[1] >= 0)])
    chosen = cut_splits(
        taken(survey.rows["pixel_sha256"], train),
        taken(survey.rows["label"], train),
        links.array(),
        shares,
        config.seed,
    )
    for name, rows in chosen.items():
        for piece in pieces(len(train)):
            targets[train[piece][rows[piece]]] = SPLITS.index(name)
    return targets, shares


def _summary(uri: str, judged: _Judged) -> DatasetSummary:
    checked = judged.checked
    splits = summarise(checked.survey, checked.copies.by_digest, judged.targets)
    return DatasetSummary(
        source_uri=uri,
        fingerprint=fingerprint(splits),
        splits=splits,
        quarantined=sum(int(np.count_nonzero(judged.targets[piece] < 0)) for piece in pieces(checked.rows)),
        labels=judged.reading.classes.labels,
    )
