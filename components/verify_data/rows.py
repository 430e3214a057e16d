"""Rows of images as they came, and how Arrow data in Hugging Face image schema becomes such rows."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from components.verify_data.classes import ClassNames
from serving.detector.labels import LABELS
from serving.platform.errors import StageError, UnknownLabelError
from serving.platform.parquet import BATCH_BYTES, weight

UNKNOWN_GENERATOR: Final = "unknown"
_IMAGE_COLUMNS: Final = ("image", "img")
_LABEL_COLUMNS: Final = ("label", "labels")
_OWN_COLUMNS: Final = ("generator", "source")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one split; all lists have the same length."""

    split: str
    names: list[str]
    """What a person is told: the path, or `split/row` and the path the row names."""
    data: list[bytes]
    """Encoded bytes, untouched; empty where the source has none."""
    labels: list[int]
    generators: list[str]
    sources: list[str]

    def take(self, rows: Sequence[int]) -> "Batch":
        """These rows only."""
        return Batch(
            split=self.split,
            names=[self.names[i] for i in rows],
            data=[self.data[i] for i in rows],
            labels=[self.labels[i] for i in rows],
            generators=[self.generators[i] for i in rows],
            sources=[self.sources[i] for i in rows],
        )


@dataclass(frozen=True, slots=True)
class ImageColumns:
    """Which columns of an Arrow schema hold what, and how labels read."""

    image: str
    label: str
    classes: ClassNames
    class_ids: tuple[int, ...] | None
    """Integer label -> the project's class id; None: each label is looked up as a name."""
    extra: tuple[str, ...]
    source: str = "source"
    """Column that names where an image came from, if it is there."""

    @classmethod
    def of(cls, schema: pa.Schema, where: str, classes: ClassNames, source: str = "") -> "ImageColumns":
        """Columns of a schema; class names come from its Hugging Face metadata.

        Args:
            schema: of the Parquet file or the hub's dataset.
            where: what a person knows it by.
            classes: how class names read.
            source: another column than `source` that says where an image came from.

        Raises:
            StageError: no such column, unknown class names, or integers whose meaning is not stated.
        """
        if source and source not in schema.names:
            raise StageError(f"{where}: no column {source!r} (--source); found {', '.join(schema.names)}")
        image = _first(schema, _IMAGE_COLUMNS, "image", where)
        label = _first(schema, _LABEL_COLUMNS, "label", where)
        extra = tuple(name for name in ("generator", source or "source") if name in schema.names)
        kind = schema.field(label).type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
            return cls(image, label, classes, None, extra, source or "source")
        if not pa.types.is_integer(kind):
            raise StageError(
                f"{where}: column {label!r} has type {kind}; labels are class names or ClassLabel integers"
            )
        names = _class_names(schema, label)
        if names is None:
            if classes.knows("0"):
                return cls(image, label, classes, None, extra, source or "source")
            if not set(_OWN_COLUMNS) <= set(schema.names):
                raise StageError(
                    f"{where}: integer labels without class names could mean either class; store class names, or say "
                    "what they mean: --label 0=real --label 1=ai_generated"
                )
            # this project's own schema, whose integers are fixed
            names = LABELS
        try:
            return cls(image, label, classes, tuple(map(classes.id, names)), extra, source or "source")
        except UnknownLabelError as error:
            raise StageError(f"{where}: {error}") from error

    @property
    def names(self) -> list[str]:
        """Columns beside the image's."""
        return [self.label, *self.extra]

    def class_id(self, value: Any, where: str) -> int:
        """Class id of one label as stored.

        Raises:
            StageError: missing, out of range or unknown.
        """
        if value is None:
            raise StageError(f"{where}: has no label; fill it in or leave the row out")
        if self.class_ids is None:
            try:
                return self.classes.id(str(value))
            except UnknownLabelError as error:
                raise StageError(f"{where}: {error}") from error
        if not 0 <= value < len(self.class_ids):
            raise StageError(f"{where}: label {value} names no class; the classes are 0-{len(self.class_ids) - 1}")
        return self.class_ids[int(value)]


def read_rows(
    split: str, prefix: str, columns: ImageColumns, batches: Iterable[pa.RecordBatch | pa.Table]
) -> Iterator[Batch]:
    """Arrow data as rows named `prefix/row (path)`, in order.

    Raises:
        StageError: a label names no class, or names weigh more than any have.
    """
    start = 0
    for batch in batches:
        if (found := _names_bytes(batch, columns)) > BATCH_BYTES:
            stop = start + batch.num_rows - 1
            raise StageError(f"{prefix}: rows {start}-{stop} have {found >> 20:,} MiB of names; are these photos?")
        data, paths = _images(batch.column(columns.image))
        names = [f"{prefix}/{start + i}" + (f" ({path})" if path else "") for i, path in enumerate(paths)]
        labels = batch.column(columns.label).to_pylist()
        yield Batch(
            split=split,
            names=names,
            data=data,
            labels=[columns.class_id(value, name) for value, name in zip(labels, names, strict=True)],
            generators=_strings(batch, columns, "generator", UNKNOWN_GENERATOR),
            sources=_strings(batch, columns, columns.source, ""),
        )
        start += batch.num_rows


def _names_bytes(batch: pa.RecordBatch | pa.Table, columns: ImageColumns) -> int:
    """What labels, generators, sources and paths weigh as Python's texts."""
    image = batch.column(columns.image)
    found = weight(batch.select(columns.names))
    if pa.types.is_struct(image.type) and image.type.get_field_index("path") >= 0:
        found += weight(pa.table({"path": pc.struct_field(image, "path")}))
    return found


def _images(column: Any) -> tuple[list[bytes], list[str]]:
    """Encoded bytes and stored paths of an image column: `struct{bytes, path}` or plain binary."""
    values = column.to_pylist()
    if pa.types.is_struct(column.type):
        cells = [value or {} for value in values]
        return [cell.get("bytes") or b"" for cell in cells], [cell.get("path") or "" for cell in cells]
    return [value or b"" for value in values], [""] * len(values)


def _strings(batch: Any, columns: ImageColumns, name: str, default: str) -> list[str]:
    if name not in columns.extra:
        return [default] * batch.num_rows
    return [default if value is None else str(value) or default for value in batch.column(name).to_pylist()]


def _first(schema: pa.Schema, candidates: Sequence[str], what: str, where: str) -> str:
    for name in candidates:
        if name in schema.names:
            return name
    raise StageError(f"{where}: no {what} column (looked for {', '.join(candidates)}; found {', '.join(schema.names)})")


def _class_names(schema: pa.Schema, label: str) -> Sequence[str] | None:
    """What Hugging Face's metadata calls the classes; None where it is not there or tells of no names."""
    document = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(document)["info"]["features"][label]["names"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    told = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return names if told else None
