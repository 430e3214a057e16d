"""What is known of every row, in mapped scratch files, so that memory stays flat.

What the judgement makes of it lies in such files too (`scratch`). Held in memory are a piece of either, and what is
told of every offender.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.artifacts.dataset import SPLITS
from components.verify_data.inspection import SCHEMA, THUMBNAIL_PX, Inspection
from components.verify_data.rows import Batch
from components.verify_data.scratch import Rows, mapped

Digests = npt.NDArray[np.bytes_]
"""sha256 as 32 bytes each (dtype S32); ascending order is that of the hexadecimal digits."""

CODED: Final = ("generator", "format", "mode", "declared")
"""Texts of few values: a row holds a number, memory holds each value once."""
NUMBERS: Final = tuple(
    field.name
    for field in SCHEMA
    if pa.types.is_floating(field.type) or pa.types.is_signed_integer(field.type) or pa.types.is_boolean(field.type)
)
_HASHES: Final = ("hash", "mirrored_hash")
_DIGEST_BYTES: Final = 32
_NO_CODE: Final = -1
_WRITTEN_OUT: Final = 8192

_TEXT: Final = np.dtype([("start", np.int64), ("length", np.int32)])
ROW: Final = np.dtype(
    [
        ("split", np.int8),
        ("label", np.int8),
        ("decoded", np.bool_),
        ("pixel_sha256", f"S{_DIGEST_BYTES}"),
        *((name, np.uint64) for name in _HASHES),
        *((name, np.int32) for name in CODED),
        *((name, np.float64) for name in NUMBERS),
        ("name", _TEXT),
        ("problem", _TEXT),
    ]
)
"""One row an image: numbers are NaN and codes -1 where missing, hashes and digest 0 where the image does not decode."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Measurements of all n rows of a source, in reading order."""

    rows: npt.NDArray[np.void]
    """Shape (n,), fields of `ROW`; mapped."""
    thumbnails: npt.NDArray[np.uint8]
    """Shape (n, 16, 16); mapped."""
    texts: npt.NDArray[np.uint8]
    """Names and problems one after another in UTF-8; mapped."""
    values: dict[str, list[str]]
    """Field of `CODED` -> what its codes stand for, in order of first appearance."""

    def numbers(self, name: str, rows: Rows | slice) -> npt.NDArray[np.float64]:
        """A field of `NUMBERS` or `CODED` of some rows; NaN where missing."""
        found = np.array(self.rows[name][rows], np.float64)
        if name in CODED:
            found[found == _NO_CODE] = np.nan
        return found

    def digests(self, rows: Rows) -> Digests:
        """Digests of the pixels of some rows."""
        return np.array(self.rows["pixel_sha256"][rows])

    def name(self, row: int) -> str:
        """What a person is told of a row."""
        return self._text("name", row)

    def problem(self, row: int) -> str:
        """Why a row does not decode; empty where it does."""
        return self._text("problem", row)

    def _text(self, field: str, row: int) -> str:
        start, length = self.rows[field][row].tolist()
        return self.texts[start : start + length].tobytes().decode()


class Recorder:
    """Writes measurements to scratch files as batches pass; the files have no names and go with their last mapping."""

    def __init__(self) -> None:
        self._rows, self._thumbnails, self._texts = (
            tempfile.TemporaryFile(prefix=f"aidetect-{what}-")  # noqa: SIM115 - closed in __exit__
            for what in ("rows", "thumbnails", "texts")
        )
        self._codes: dict[str, dict[str, int]] = {name: {} for name in CODED}
        self._text_bytes = 0
        self.count = 0
        """Rows recorded."""

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._rows, self._thumbnails, self._texts):
            file.close()

    def add(self, batch: Batch, inspection: Inspection) -> None:
        """Take one inspected batch."""
        table = inspection.table
        rows = np.zeros(len(batch.names), ROW)
        rows["split"] = SPLITS.index(batch.split)
        rows["label"] = batch.labels
        rows["decoded"] = table.column("problem").is_null().to_numpy(zero_copy_only=False)
        digests = table.column("pixel_sha256").fill_null("00" * _DIGEST_BYTES).to_pylist()
        rows["pixel_sha256"] = np.frombuffer(bytes.fromhex("".join(digests)), rows["pixel_sha256"].dtype)
        for name in _HASHES:
            rows[name] = table.column(name).fill_null(0).to_numpy()
        for name in NUMBERS:
            rows[name] = table.column(name).to_numpy(zero_copy_only=False)
        rows["generator"] = self._coded("generator", batch.generators)
        for name in ("format", "mode", "declared"):
            rows[name] = self._coded(name, table.column(name).to_pylist())
        rows["name"] = self._written(batch.names)
        rows["problem"] = self._written([problem or "" for problem in table.column("problem").to_pylist()])
        self._rows.write(rows.tobytes())
        self._thumbnails.write(inspection.thumbnails.tobytes())
        self.count += len(rows)

    def _coded(self, name: str, values: Sequence[str | None]) -> list[int]:
        codes = self._codes[name]
        return [_NO_CODE if value is None else codes.setdefault(value, len(codes)) for value in values]

    def _written(self, texts: Sequence[str]) -> npt.NDArray[np.void]:
        """Append texts; returns where they lie."""
        encoded = [text.encode() for text in texts]
        places = np.empty(len(encoded), _TEXT)
        places["length"] = [len(text) for text in encoded]
        places["start"] = self._text_bytes + np.cumsum(places["length"], dtype=np.int64) - places["length"]
        self._texts.write(b"".join(encoded))
        self._text_bytes += int(places["length"].sum())
        return places

    def survey(self) -> Survey:
        """What was recorded, at least one row."""
        return Survey(
            rows=mapped(self._rows, ROW, self.count),
            thumbnails=mapped(self._thumbnails, np.uint8, self.count, THUMBNAIL_PX, THUMBNAIL_PX),
            texts=mapped(self._texts, np.uint8, self._text_bytes),
            values={name: list(codes) for name, codes in self._codes.items()},
        )


def hexadecimal(digests: Digests, order: Rows) -> Iterator[str]:
    """`digests[order]` as 64 digits each; a few thousand are written out at a time."""
    for start in range(0, len(order), _WRITTEN_OUT):
        yield from digests[order[start : start + _WRITTEN_OUT]].tobytes().hex(" ", _DIGEST_BYTES).split()
