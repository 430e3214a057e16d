"""Packed datasets for the tests of evaluate, in the schema that verify_data writes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.dataset import SCHEMA, DatasetSummary, SplitSummary, write_summary
from serving.detector.image import decode


def row(data: bytes, label: int, generator: str = "", source: str = "", path: str = "x.jpg") -> dict[str, object]:
    """One row of a packed split."""
    pixels = np.asarray(decode(data).rgb)
    return {
        "image": {"bytes": data, "path": path},
        "label": label,
        "generator": generator,
        "source": source,
        "pixel_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
    }


def pack(folder: Path, splits: dict[str, Sequence[dict[str, object]]], source_uri: str = "made for a test") -> Path:
    """Write a packed dataset folder."""
    folder.mkdir(parents=True)
    summaries = {}
    for name, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), folder / f"{name}.parquet")
        labels = [r["label"] for r in rows]
        keys = sorted((r["pixel_sha256"], r["label"]) for r in rows)
        summaries[name] = SplitSummary(
            rows=len(rows),
            by_class={"real": labels.count(0), "ai_generated": labels.count(1)},
            fingerprint=hashlib.sha256(repr(keys).encode()).hexdigest(),
        )
    whole = hashlib.sha256("".join(s.fingerprint for s in summaries.values()).encode()).hexdigest()
    write_summary(folder, DatasetSummary(source_uri=source_uri, fingerprint=whole, splits=summaries))
    return folder


def sample_rows(sample_dir: Path, split: str) -> list[dict[str, object]]:
    """Rows of the shipped sample."""
    found = pq.read_table(sample_dir / f"{split}.parquet").to_pylist()
    return [row(r["image"]["bytes"], r["label"], r["generator"], r["source"], r["image"]["path"]) for r in found]
