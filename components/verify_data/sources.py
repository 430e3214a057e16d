"""Where images and labels come from: class folders, Parquet in Hugging Face schema, or a dataset of the hub."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.dataset import TEST, TRAIN, open_parquet
from components.verify_data.findings import Skipped
from components.verify_data.layout import BATCH_ROWS, HUB_SCHEME, SPLIT_NAMES, split_of
from components.verify_data.rows import UNKNOWN_GENERATOR, Batch, ImageColumns, read_rows
from components.verify_data.skipped import shown
from components.verify_data.stores import GcsStore, LocalStore, Store
from serving.detector.image import HEAD_BYTES, kind_of
from serving.detector.labels import label_id
from serving.platform.cloud_storage import SCHEME
from serving.platform.errors import StageError, UnknownLabelError

QUARANTINE_FILE: Final = "quarantine.parquet"
BATCH_BYTES: Final = 16 * 2**20

_IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff .avif .heic .heif".split()  # noqa: SIM905 - reads better so
)
"""What is an image by its name alone: told of as refused where its bytes are none. Other names are judged by bytes."""


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


def open_source(uri: str) -> Source:
    """The source a URI names: folder path, `gs://BUCKET/PREFIX` or `hf://DATASET`.

    Raises:
        StageError: nothing there, no known layout, an unknown split or class name, no train or no test split.
    """
    if uri.startswith(HUB_SCHEME):
        from components.verify_data.hub import HubSource

        source: Source = HubSource(uri)
    else:
        store: Store = GcsStore(uri) if uri.startswith(SCHEME) else LocalStore(Path(uri).expanduser())
        paths = store.paths()
        if not paths:
            raise StageError(f"{uri}: no files there; expected train/ and test/ with class folders, or Parquet files")
        # a packed dataset is a source too; what it set aside is not
        parquet = [path for path in paths if path.endswith(".parquet") and path != QUARANTINE_FILE]
        for path in set(paths) - set(parquet) if parquet else ():
            store.skipped.add(path, "file beside the Parquet files")
        source = ParquetSource(store, parquet) if parquet else FolderSource(store, paths)
    for split in (TRAIN, TEST):
        if split not in source.splits:
            found = ", ".join(source.splits) or "none"
            raise StageError(f"{uri}: no {split} split (found: {found}); a dataset needs train and test")
    return source


class FolderSource:
    """`{split}/{class}/**/image` with any known class name or alias; CIFAKE's `{train,test}/{REAL,FAKE}` is one."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        self.uri = store.uri
        self._store = store
        self._images: dict[str, list[str]] = {}
        self._classes: dict[str, int] = {}
        for path in paths:
            parts = path.split("/")
            split = split_of(parts[0]) if len(parts) > 1 else None
            if (split is None or len(parts) < 3 or not self._is_class(parts[1])) and self._skips(path):
                continue
            if split is None or len(parts) < 3:
                raise StageError(
                    f"{self.uri}/{shown(path)}: images belong in {{train,val,test}}/{{real,ai_generated}}/"
                    + _nested_hint(self.uri, parts)
                )
            if parts[1] not in self._classes:
                try:
                    self._classes[parts[1]] = label_id(parts[1])
                except UnknownLabelError as error:
                    raise StageError(f"{self.uri}/{parts[0]}/{shown(parts[1])}: {error}") from error
            self._images.setdefault(split, []).append(path)
        if not self._images:
            raise StageError(f"{self.uri}: no images there; expected {{train,val,test}}/{{real,ai_generated}}/*.jpg")

    def _is_class(self, name: str) -> bool:
        try:
            label_id(name)
        except UnknownLabelError:
            return False
        return True

    def _skips(self, path: str, data: bytes | None = None) -> bool:
        """Whether a file is no picture, neither by its name nor by its bytes; then it is told of as skipped."""
        if PurePosixPath(path).suffix.lower() in _IMAGE_SUFFIXES:
            return False
        if data is None:
            (data,) = self._store.read([path], HEAD_BYTES)
        kind = kind_of(data) if data is not None else None
        if kind is not None and kind.picture:
            return False
        if kind is not None:
            self._store.skipped.add(path, kind.name)
        return True

    @property
    def skipped(self) -> list[Skipped]:
        """What is no image, as far as it was read."""
        return self._store.skipped.found()

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the source brings."""
        return tuple(self._images)

    @property
    def rows(self) -> int | None:
        """Number of images."""
        return sum(map(len, self._images.values()))

    def batches(self, split: str) -> Iterator[Batch]:
        """Images of a split by path."""
        images = self._images[split]
        start, size = 0, 16
        while start < len(images):
            paths = images[start : start + size]
            start += len(paths)
            read = zip(paths, self._store.read(paths), strict=True)
            kept = [(path, data) for path, data in read if data is not None and not self._skips(path, data)]
            if not kept:
                continue
            yield Batch(
                split=split,
                names=[shown(path) for path, _ in kept],
                data=[data for _, data in kept],
                labels=[self._classes[path.split("/", 2)[1]] for path, _ in kept],
                generators=[shown(_generator(path)) for path, _ in kept],
                sources=[""] * len(kept),
            )
            size = rows_within_budget(sum(len(data) for _, data in kept) / len(kept))


class ParquetSource:
    """Parquet files in Hugging Face image schema, one or several a split and named for it (`train-00000-of-00002`)."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        self.uri = store.uri
        self._store = store
        self._files: dict[str, list[str]] = {}
        for path in paths:
            split = _split_of_file(path)
            if split is None:
                raise StageError(f"{self.uri}/{path}: names no split; known: {', '.join(sorted(SPLIT_NAMES))}")
            self._files.setdefault(split, []).append(path)
        self._rows = {split: sum(map(self._rows_of, files)) for split, files in self._files.items()}

    def _rows_of(self, path: str) -> int:
        try:
            return int(pq.read_metadata(self._store.local(path)).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise StageError(
                f"{self.uri}/{path}: not a readable Parquet file ({str(error).splitlines()[0]})"
            ) from error

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
        return sum(self._rows.values())

    def batches(self, split: str) -> Iterator[Batch]:
        """Rows of a split in stored order."""
        for path in self._files[split]:
            with open_parquet(self._store.local(path)) as file:
                columns = ImageColumns.of(file.schema_arrow, f"{self.uri}/{path}")
                wanted = [columns.image, columns.label, *columns.extra]
                prefix = PurePosixPath(path).with_suffix("").as_posix()
                size = rows_within_budget(_row_bytes(file.metadata))
                yield from read_rows(
                    split, prefix, columns, file.iter_batches(batch_size=size, columns=wanted, use_threads=False)
                )


def rows_within_budget(row_bytes: float) -> int:
    """How many rows a batch holds, so that big photographs do not make big batches."""
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1.0, row_bytes))))


def _row_bytes(metadata: pq.FileMetaData) -> float:
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return float(total / max(1, metadata.num_rows))


def _split_of_file(path: str) -> str | None:
    file = PurePosixPath(path)
    stem = file.stem.lower()
    # `train.parquet`, hub shards `train-00000-of-00002.parquet`, and the hub's converted `train/0000.parquet`
    return split_of(stem) or split_of(stem.split("-")[0]) or (split_of(file.parent.name) if file.parent.name else None)


def _generator(path: str) -> str:
    """A folder below the class folder names the generator (or camera): `train/ai_generated/sdxl/1.jpg`."""
    parts = path.split("/")
    return parts[2] if len(parts) > 3 else UNKNOWN_GENERATOR


def _nested_hint(uri: str, parts: Sequence[str]) -> str:
    if len(parts) > 2 and split_of(parts[1]) is not None:
        return f"; did you mean {uri.rstrip('/')}/{parts[0]}?"
    return ""
