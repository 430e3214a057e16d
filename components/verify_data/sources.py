"""Where images and labels come from: class folders, Parquet in Hugging Face schema, or a dataset of the hub."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.dataset import TEST, TRAIN, VAL, open_parquet
from components.verify_data.findings import Skipped
from components.verify_data.folders import FolderSource, rows_within_budget
from components.verify_data.layout import (
    FOLDER,
    HUB_SCHEME,
    SPLIT_NAMES,
    Reading,
    how_to_cut,
    split_of,
)
from components.verify_data.rows import Batch, ImageColumns, read_rows
from components.verify_data.skipped import shown
from components.verify_data.stores import GcsStore, LocalStore, Store
from components.verify_data.tables import PARQUET, TABLES, TableSource, lists_paths
from components.verify_data.writing import is_unfinished
from serving.platform.cloud_storage import SCHEME
from serving.platform.errors import StageError
from serving.platform.parquet import coded

QUARANTINE_FILE: Final = "quarantine.parquet"
_SHARD: Final = re.compile(rf"(?P<name>.*)-(?P<number>\d{{1,9}})-of-(?P<count>\d{{1,9}}){re.escape(PARQUET)}")


class Source(Protocol):
    """A dataset before verification."""

    uri: str

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the source brings, by the project's names."""
        ...

    @property
    def rows(self) -> int | None:
        """Number of rows, where known before reading."""
        ...

    @property
    def skipped(self) -> list[Skipped]:
        """What lies beside the images, as far as it was read."""
        ...

    def batches(self, split: str) -> Iterator[Batch]:
        """Rows of a split in a stable order."""
        ...


def open_source(uri: str, reading: Reading | None = None) -> Source:
    """The source a URI names: folder, table or Parquet file, `gs://BUCKET/PREFIX` or `hf://DATASET`.

    Raises:
        StageError: nothing there, no known layout, an unknown split or class name, no train or no test split.
    """
    reading = reading or Reading()
    source = _opened(uri, reading)
    for split, share in ((TEST, reading.cut.test), (VAL, reading.cut.val)):
        if share is not None and split in source.splits:
            raise StageError(f"{uri}: brings its own {split} split, which stays as it is; leave --{split} away")
    for split in (TRAIN, TEST):
        if split not in source.splits and not (split == TEST and reading.cut.test is not None):
            found = ", ".join(source.splits) or "none"
            raise StageError(f"{uri}: no {split} split (found: {found}); a dataset needs train and test")
    return source


def _opened(uri: str, reading: Reading) -> Source:
    if uri.startswith(HUB_SCHEME):
        from components.verify_data.hub import HubSource

        return HubSource(uri, reading)
    path = Path(uri).expanduser()
    if not uri.startswith(SCHEME) and path.is_file():
        return _of_one_file(path, reading)
    store: Store = GcsStore(uri) if uri.startswith(SCHEME) else LocalStore(path)
    if not uri.startswith(SCHEME) and is_unfinished(path):
        raise StageError(f"{uri}: an import into it is under way, or was killed; import there once more")
    paths = store.paths()
    if not len(paths):
        raise StageError(f"{uri}: no files there; expected folders named for their class, or Parquet files")
    # a packed dataset is a source too; what it set aside is not
    parquet = [path for path in paths if path.endswith(PARQUET) and path != QUARANTINE_FILE]
    _refuse_parts(uri, parquet)
    if not parquet:
        return FolderSource(store, paths, reading)
    for name in paths:
        if not name.endswith(PARQUET) or name == QUARANTINE_FILE:
            store.skipped.add(name, "file beside the Parquet files")
    return ParquetSource(store, parquet, reading)


def _of_one_file(path: Path, reading: Reading) -> Source:
    """A table of paths and labels, or a Parquet file that holds the images."""
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise StageError(
            f"{shown(str(path))}: is a file; give the folder of the images, or a table ({', '.join(TABLES)})"
        )
    # the table's paths are meant from its folder
    store = LocalStore(path.parent)
    if suffix == PARQUET and not lists_paths(path):
        return ParquetSource(store, [path.name], reading)
    return TableSource(store, path, reading)


class ParquetSource:
    """Parquet files in Hugging Face image schema, one or several a split and named for it (`train-00000-of-00002`)."""

    def __init__(self, store: Store, paths: Sequence[str], reading: Reading) -> None:
        if reading.source == FOLDER:
            raise StageError(f"{store.uri}: --source {FOLDER} is for folders of images; name a column")
        self.uri = store.uri
        self._store = store
        self._reading = reading
        self._files: dict[str, list[str]] = {}
        heap = not any(map(_split_of_file, paths))
        for path in paths:
            split = TRAIN if heap and reading.cut.test is not None else _split_of_file(path)
            if split is None:
                raise StageError(
                    f"{self.uri}/{path}: names no split; known: {', '.join(sorted(SPLIT_NAMES))}"
                    + (f"; or cut splits: {how_to_cut(self.uri)}" if heap else "")
                )
            self._files.setdefault(split, []).append(path)
        self._rows = sum(store.parquet_rows(paths))

    @property
    def skipped(self) -> list[Skipped]:
        """What lies beside the Parquet files."""
        return self._store.skipped.found()

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the source brings."""
        return tuple(self._files)

    @property
    def rows(self) -> int | None:
        """Number of rows by the files' footers."""
        return self._rows

    def batches(self, split: str) -> Iterator[Batch]:
        """Rows of a split in stored order."""
        for path in self._files[split]:
            try:
                yield from self._of_file(split, path)
            except (pa.ArrowException, OSError) as error:
                # also of what stands behind a good end of the file: a damaged or encrypted column
                raise StageError(
                    f"{self.uri}/{path}: not a readable Parquet file ({str(error).splitlines()[0]})"
                ) from error

    def _of_file(self, split: str, path: str) -> Iterator[Batch]:
        with self._store.on_disk(path) as local:
            with open_parquet(local) as file:
                columns = ImageColumns.of(
                    file.schema_arrow, f"{self.uri}/{path}", self._reading.classes, self._reading.column
                )
                texts = coded(file.schema_arrow, columns.names)
            wanted = [columns.image, columns.label, *columns.extra]
            prefix = PurePosixPath(path).with_suffix("").as_posix()
            with open_parquet(local, texts) as file:
                size = rows_within_budget(_row_bytes(file.metadata))
                yield from read_rows(
                    split, prefix, columns, file.iter_batches(batch_size=size, columns=wanted, use_threads=False)
                )


def _refuse_parts(uri: str, paths: Sequence[str]) -> None:
    """Refuse a source of which shards are missing, as a download that was cut short leaves it: their names say so."""
    there: dict[tuple[str, str], set[int]] = {}
    for path in paths:
        if found := _SHARD.fullmatch(path):
            there.setdefault((found["name"], found["count"]), set()).add(int(found["number"]))
    for (name, count), numbers in there.items():
        if missing := int(count) - len(numbers):
            raise StageError(
                f"{uri}: {missing:,} of the {int(count):,} files {shown(name)}-*-of-{count}{PARQUET} are missing; "
                "fetch them, or name the one file that is meant"
            )


def _row_bytes(metadata: pq.FileMetaData) -> float:
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return float(total / max(1, metadata.num_rows))


def _split_of_file(path: str) -> str | None:
    file = PurePosixPath(path)
    stem = file.stem.lower()
    # `train.parquet`, hub shards `train-00000-of-00002.parquet`, and the hub's converted `train/0000.parquet`
    return split_of(stem) or split_of(stem.split("-")[0]) or (split_of(file.parent.name) if file.parent.name else None)
