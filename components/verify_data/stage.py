"""The stage: survey, judge, report, pack. A folder gets its `dataset.json` only when everything before went well."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import DATASET_JSON, SPLITS, TRAIN, VAL, DatasetSummary, write_summary
from components.verify_data.checks import Checked, check
from components.verify_data.config import VerifyDataConfig
from components.verify_data.findings import Findings
from components.verify_data.pack import QUARANTINE, Spool, fingerprint, summarise
from components.verify_data.progress import progress
from components.verify_data.report import Gallery, write_report
from components.verify_data.skipped import sentence
from components.verify_data.sources import open_source
from components.verify_data.survey import Sink, survey
from components.verify_data.validation_split import choose_validation
from serving.platform.errors import StageError


def verify(uri: str, config: VerifyDataConfig, report: Path | None = None) -> tuple[Findings, DatasetSummary]:
    """Check a dataset without writing it: what a run would find, and what it would pack.

    The findings are returned whether or not they stop a run (`Findings.problems`).

    Raises:
        StageError: nothing readable at `uri`.
    """
    gallery = Gallery()
    checked, findings = _survey(uri, config, [gallery])
    targets = _targets(checked, findings, config)
    if report is not None:
        write_report(report, uri, findings, checked, gallery)
    return findings, _summary(uri, checked, targets)


def verify_and_pack(uri: str, config: VerifyDataConfig, dataset: Path, report: Path) -> tuple[Findings, DatasetSummary]:
    """Check every image of a dataset and pack what passed.

    Args:
        uri: folder, `gs://BUCKET/PREFIX` or `hf://DATASET`.
        config: tolerances.
        dataset: folder to write; it gets `dataset.json` last of all.
        report: HTML page to write, also when the run is refused.

    Raises:
        StageError: nothing readable at `uri`, or more offenders than tolerated. The report and `quarantine.parquet`
            stay; no split and no `dataset.json` is left.
    """
    dataset.mkdir(parents=True, exist_ok=True)
    for old in (DATASET_JSON, *(f"{split}.parquet" for split in (*SPLITS, QUARANTINE))):
        (dataset / old).unlink(missing_ok=True)
    with Spool(dataset) as spool:
        gallery = Gallery()
        checked, findings = _survey(uri, config, [spool, gallery])
        targets = _targets(checked, findings, config)
        write_report(report, uri, findings, checked, gallery)
        with _all_or_nothing(dataset):
            spool.deal(checked.split_ids, targets, findings.offenders)
            if findings.problems:
                raise StageError(f"{uri}: {' | '.join(findings.problems)} - full list: {report}")
            summary = _summary(uri, checked, targets)
            write_summary(dataset, summary)
    return findings, summary


@contextmanager
def _all_or_nothing(dataset: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for split in SPLITS:
            (dataset / f"{split}.parquet").unlink(missing_ok=True)
        raise


def _survey(uri: str, config: VerifyDataConfig, sinks: Sequence[Sink]) -> tuple[Checked, Findings]:
    source = open_source(uri)
    with progress("verify_data", None if config.limit else source.rows) as advance:
        surveyed = survey(source, config.workers, config.limit, sinks, advance)
    findings, checked = check(surveyed, config)
    skipped = source.skipped
    warnings = [*findings.warnings, *filter(None, [sentence(skipped)])]
    return checked, findings.model_copy(update={"skipped": skipped, "warnings": warnings})


def _targets(checked: Checked, findings: Findings, config: VerifyDataConfig) -> npt.NDArray[np.intp]:
    """Split each row goes to, by number; -1 for quarantine."""
    targets = checked.split_ids.copy()
    targets[[offender.row for offender in findings.offenders]] = -1
    if VAL not in findings.splits:
        train = np.flatnonzero(targets == SPLITS.index(TRAIN))
        position = np.full(len(targets), -1, np.intp)
        position[train] = np.arange(len(train))
        links = (position[checked.pairs.left], position[checked.pairs.right])
        inside = (links[0] >= 0) & (links[1] >= 0)
        chosen = choose_validation(
            checked.survey.digests(train),
            checked.labels[train],
            (links[0][inside], links[1][inside]),
            config.val_fraction,
            config.seed,
        )
        targets[train[chosen]] = SPLITS.index(VAL)
    return targets


def _summary(uri: str, checked: Checked, targets: npt.NDArray[np.intp]) -> DatasetSummary:
    splits = {}
    for i, name in enumerate(SPLITS):
        rows = np.flatnonzero(targets == i)
        if len(rows):
            splits[name] = summarise(checked.survey.digests(rows), checked.labels[rows])
    return DatasetSummary(
        source_uri=uri,
        fingerprint=fingerprint(splits),
        splits=splits,
        quarantined=int((targets < 0).sum()),
    )
