"""Writing what passed: images stream into Parquet as they are read; what the checks found decides where rows end."""

import json
import shutil
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.dataset import SCHEMA, SPLITS, SplitSummary, open_parquet, shard_name
from components.verify_data.findings import Offender
from components.verify_data.inspection import Inspection
from components.verify_data.measurements import Survey, hexadecimal
from components.verify_data.rows import Batch
from components.verify_data.scratch import Dealt, pieces
from serving.detector.labels import LABELS

QUARANTINE: Final = "quarantine"
SPOOL: Final = ".spool"
"""Folder within the dataset's, there from the first image to the last file: a dataset beside it is not whole."""
_ROW_GROUP_BYTES: Final = 32 * 2**20
_ROW_GROUP_ROWS: Final = 4096
_ENDLESS: Final = sys.maxsize

QUARANTINE_SCHEMA: Final = pa.schema(
    [
        ("image", SCHEMA.field("image").type),
        ("label", pa.int64()),
        ("split", pa.string()),
        ("kind", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Rows that may not go on, with their bytes: nothing is lost."""


def _with_features(schema: pa.Schema) -> pa.Schema:
    """Hugging Face metadata: `datasets.load_dataset` shows images and class names."""
    kinds = {"image": {"_type": "Image"}, "label": {"names": list(LABELS), "_type": "ClassLabel"}}
    features = {field.name: kinds.get(field.name, {"dtype": str(field.type), "_type": "Value"}) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


class ParquetStream:
    """Appends record batches to one Parquet file in row groups of bounded size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        # encoded images do not compress further
        self._writer = pq.ParquetWriter(path, _with_features(schema), compression="none", use_dictionary=["generator"])
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _ROW_GROUP_ROWS or self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, schema=self._schema)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._waiting, self._rows, self._bytes = [], 0, 0
        # left alone, Arrow holds on to twice what it uses
        pa.default_memory_pool().release_unused()

    def close(self) -> None:
        """Write what waits and the footer."""
        self._flush()
        self._writer.close()


class SplitFiles:
    """Appends record batches to the files of one split; each ends once it has so many bytes."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, file_bytes: int) -> None:
        self._folder, self._name, self._schema, self._file_bytes = folder, name, schema, file_bytes
        self._parts: list[Path] = []
        self._stream: ParquetStream | None = None
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        if self._stream is None or self._bytes >= self._file_bytes:
            self._end()
            # hidden until it is known how many there are
            self._parts.append(self._folder / f".{self._name}-{len(self._parts):05d}.partial")
            self._stream, self._bytes = ParquetStream(self._parts[-1], self._schema), 0
        self._stream.add(batch)
        self._bytes += batch.nbytes

    def _end(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def close(self) -> list[Path]:
        """Write the last footer and give the files their names; returns them in order."""
        self._end()
        count = len(self._parts)
        for number, part in enumerate(self._parts):
            name = f"{self._name}.parquet" if count == 1 else shard_name(self._name, number, count)
            self._parts[number] = part.replace(self._folder / name)
        return self._parts


class Spool:
    """Receives every batch during the survey; afterwards deals its rows out to the final files."""

    def __init__(self, folder: Path, file_bytes: int) -> None:
        """Make room in a folder.

        Args:
            folder: of the dataset.
            file_bytes: a split of more is written as several files.
        """
        self.folder = folder
        self._file_bytes = file_bytes
        self._spool = folder / SPOOL
        shutil.rmtree(self._spool, ignore_errors=True)
        self._spool.mkdir(parents=True)
        self._open: tuple[str, SplitFiles] | None = None
        self._files: dict[str, list[Path]] = {}

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            shutil.rmtree(self._spool, ignore_errors=True)

    def _close(self) -> None:
        if self._open is not None:
            split, files = self._open
            self._open = None
            self._files[split] = files.close()

    def add(self, batch: Batch, inspection: Inspection) -> None:
        """Take one inspected batch, damaged images included; splits come one after the other."""
        if self._open is None or self._open[0] != batch.split:
            self._close()
            self._open = batch.split, SplitFiles(self._spool, batch.split, SCHEMA, self._file_bytes)
        columns: list[Any] = [
            pa.StructArray.from_arrays([pa.array(batch.data, pa.binary()), pa.array(batch.names)], ["bytes", "path"]),
            pa.array(batch.labels, pa.int64()),
            pa.array(batch.generators, pa.string()),
            pa.array(batch.sources, pa.string()),
            *(inspection.table.column(name) for name in ("pixel_sha256", "width", "height")),
        ]
        self._open[1].add(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))

    def deal(self, targets: npt.NDArray[np.int8], offenders: Iterable[Offender]) -> None:
        """Write the final files.

        Args:
            targets: split each row goes to, -1 for quarantine, in the order in which they came, shape (n,).
            offenders: why rows are quarantined; the first word on a row counts.
        """
        self._close()
        reasons: dict[int, Offender] = {}
        for offender in offenders:
            reasons.setdefault(offender.row, offender)
        outputs: dict[int, SplitFiles] = {}
        start = 0
        try:
            # splits came one after the other
            for split, spooled in self._files.items():
                number, end = SPLITS.index(split), start + sum(pq.read_metadata(path).num_rows for path in spooled)
                stays = all((targets[start:end][piece] == number).all() for piece in pieces(end - start))
                if stays and number not in outputs:
                    for path in spooled:
                        path.replace(self.folder / path.name)
                else:
                    self._redistribute(spooled, start, targets, reasons, outputs)
                start = end
        finally:
            for files in outputs.values():
                files.close()
        self._files = {}

    def _redistribute(
        self,
        spooled: list[Path],
        start: int,
        targets: npt.NDArray[np.int8],
        reasons: dict[int, Offender],
        outputs: dict[int, SplitFiles],
    ) -> None:
        for path in spooled:
            with open_parquet(path) as file:
                for batch in file.iter_batches(batch_size=256, use_threads=False):
                    here = np.arange(start, start + batch.num_rows)
                    self._deal_batch(batch, targets[here], here, reasons, outputs)
                    start += batch.num_rows
            # what has been dealt out does not stand on the disk twice
            path.unlink()

    def _deal_batch(
        self,
        batch: pa.RecordBatch,
        targets: npt.NDArray[np.int8],
        rows: npt.NDArray[np.intp],
        reasons: dict[int, Offender],
        outputs: dict[int, SplitFiles],
    ) -> None:
        for target in np.unique(targets).tolist():
            name = SPLITS[target] if target >= 0 else QUARANTINE
            if target not in outputs:
                schema = SCHEMA if target >= 0 else QUARANTINE_SCHEMA
                # what was set aside is one file: a packed dataset that is read again leaves it out by its name
                outputs[target] = SplitFiles(self.folder, name, schema, self._file_bytes if target >= 0 else _ENDLESS)
            chosen = targets == target
            taken = pa.RecordBatch.from_arrays(batch.filter(pa.array(chosen)).columns, schema=SCHEMA)
            if target < 0:
                taken = _quarantined(taken, [reasons[row] for row in rows[chosen].tolist()])
            outputs[target].add(taken)


def _quarantined(batch: pa.RecordBatch, offenders: list[Offender]) -> pa.RecordBatch:
    columns = [
        batch.column("image"),
        batch.column("label"),
        pa.array([offender.split for offender in offenders]),
        pa.array([offender.kind for offender in offenders]),
        pa.array([offender.detail for offender in offenders]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=QUARANTINE_SCHEMA)


def summarise(survey: Survey, by_digest: Dealt, targets: npt.NDArray[np.int8]) -> dict[str, SplitSummary]:
    """Counts and fingerprint of each split that gets rows, whatever their order.

    A fingerprint is a sha256 over the sorted lines `digest label`.

    Args:
        survey: of n rows.
        by_digest: those that decode, in ascending ranges of their digests.
        targets: split each row goes to, -1 for none, shape (n,).
    """
    content = [sha256() for _ in SPLITS]
    counts = np.zeros((len(SPLITS), len(LABELS)), np.intp)
    for some in by_digest:
        for split in np.unique(targets[some][targets[some] >= 0]).tolist():
            rows = some[targets[some] == split]
            digests, labels = survey.digests(rows), survey.rows["label"][rows]
            order = np.lexsort((labels, digests))
            for digest, label in zip(hexadecimal(digests, order), labels[order].tolist(), strict=True):
                content[split].update(f"{digest} {label}\n".encode())
            counts[split] += np.bincount(labels, minlength=len(LABELS))
    return {
        name: SplitSummary(
            rows=int(counts[i].sum()),
            by_class=dict(zip(LABELS, counts[i].tolist(), strict=True)),
            fingerprint=content[i].hexdigest(),
        )
        for i, name in enumerate(SPLITS)
        if counts[i].any()
    }


def fingerprint(splits: dict[str, SplitSummary]) -> str:
    """sha256 over the splits' names and fingerprints."""
    return sha256("".join(f"{name} {splits[name].fingerprint}\n" for name in sorted(splits)).encode()).hexdigest()
