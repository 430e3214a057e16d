"""Memory is flat in the dataset's size: one more image adds a few numbers, never names, digests' digits or bytes."""

import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.verify_data import names, scratch, shortcuts, stage, survey
from components.verify_data.config import VerifyDataConfig
from components.verify_data.folders import FolderSource
from components.verify_data.inspection import SCHEMA, Inspection
from components.verify_data.layout import Cut, Reading
from components.verify_data.names import sorted_names
from components.verify_data.rows import Batch
from tests.bench.bench_verify_data import growth_kb
from tests.untraced import untraced

ROOT = Path(__file__).parents[3]
FEW, MANY = 6_000, 24_000
MOST_KB = 0.5
"""An image; under 0.1 kB are measured, 3.2 kB were while measurements stood in memory and files were read ahead."""


def _write(root: Path, images: int) -> Path:
    """Parquet of distinct 16 px images under labels that nothing tells apart."""
    generator = np.random.default_rng(0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, rows in (("train", images * 4 // 5), ("test", images // 5)):
        root.mkdir(exist_ok=True)
        cells = []
        for i, pixels in enumerate(generator.integers(0, 256, (rows, 4, 4, 3), np.uint8)):
            buffer = io.BytesIO()
            Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(buffer, "PNG", compress_level=1)
            cells.append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
        labels = np.where(generator.integers(0, 2, rows), "real", "fake").tolist()
        table = pa.table({"image": pa.array(cells, kind), "label": labels})
        pq.write_table(table, root / f"{split}.parquet", compression="none", row_group_size=1000)
    return root


def _measure(root: Path) -> dict[str, float]:
    # Arrow's own allocator keeps tens of megabytes of what was freed, more or less as it happens
    environment = {**untraced(), "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_verify_data", "--measure", str(root)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.system
def test_one_more_image_costs_next_to_no_memory(tmp_path: Path) -> None:
    few, many = (_measure(_write(tmp_path / str(images), images)) for images in (FEW, MANY))
    assert (few["images"], many["images"]) == (FEW, MANY)
    assert growth_kb(few, many, "anonymous_mb") < MOST_KB


class _Numbers:
    """A source of as many images as wanted, measurements alone: one of four has a twin, one of eight nearly one."""

    uri, splits, skipped = "numbers", ("train", "test"), ()

    def __init__(self, images: int) -> None:
        self.rows = images
        self._generator = np.random.default_rng(3)

    def batches(self, split: str) -> Iterator[Batch]:
        count = self.rows * 4 // 5 if split == "train" else self.rows // 5
        for start in range(0, count, 500):
            rows = range(start, min(count, start + 500))
            labels = [row // 8 % 2 for row in rows]
            sources = [f"shop {row // 40}" for row in rows]
            yield Batch(split, [f"{split}/{row}" for row in rows], [b""] * len(rows), labels, sources, sources)

    def inspect(self, batch: Batch) -> Inspection:
        n, draw = len(batch.names), self._generator.integers
        digests = draw(0, 256, (n, 32), np.uint8)
        digests[::8], digests[1::8] = digests[2::8][: len(digests[::8])], digests[3::8][: len(digests[1::8])]
        hashes = draw(0, 2**64, n, np.uint64)
        hashes[4::8] = hashes[5::8][: len(hashes[4::8])] ^ np.uint64(3)
        values = {"pixel_sha256": [one.tobytes().hex() for one in digests], "hash": hashes}
        values |= {"mirrored_hash": draw(0, 2**64, n, np.uint64), "format": ["JPEG"] * n, "mode": ["RGB"] * n}
        columns = [
            pa.array(values[field.name], field.type)
            if field.name in values
            else pa.nulls(n, field.type)
            if pa.types.is_string(field.type)
            else pa.array(draw(50, 99, n)).cast(field.type)
            for field in SCHEMA
        ]
        return Inspection(pa.RecordBatch.from_arrays(columns, schema=SCHEMA), draw(0, 5, (n, 16, 16), np.uint8))


def test_ten_times_the_images_are_judged_in_the_memory_of_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "PIECE", 1_000)
    monkeypatch.setattr(shortcuts, "_MAX_ROWS", 1_000)
    config = VerifyDataConfig(workers=1, max_label_conflict_share=1, max_exact_duplicate_share=1)

    def peak(images: int) -> int:
        source = _Numbers(images)
        monkeypatch.setattr(stage, "open_source", lambda *_: source)
        monkeypatch.setattr(survey, "_inspect", source.inspect)
        monkeypatch.setattr(stage, "Gallery", lambda: SimpleNamespace(add=lambda *_: None, pictures={}))
        tracemalloc.reset_peak()
        findings, summary = stage.verify("numbers", config, tmp_path / "report.html", Reading(cut=Cut(val=0.1)))
        found = tracemalloc.get_traced_memory()[1]
        assert findings.rows == images == sum(split.rows for split in summary.splits.values()) + summary.quarantined
        assert sum(findings.duplicates_inside.values()) >= images // 5
        assert sum(findings.near_duplicates_inside.values()) >= images // 10
        return found

    peak(1_000)  # what is imported and kept
    tracemalloc.start()
    try:
        assert peak(20_000) < 1.15 * peak(2_000)
    finally:
        tracemalloc.stop()


def test_ten_times_the_names_are_listed_in_the_memory_of_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "SORTED", 2_000)
    monkeypatch.setattr(names, "_HELD", 100)
    monkeypatch.setattr(names, "_READ_BYTES", 2**8)

    def peak(images: int) -> int:
        tracemalloc.reset_peak()
        # as a disk gives them: in no order
        numbers = (i * 7919 % images for i in range(images))
        listed = (f"{('train', 'test')[i % 5 == 0]}/{('real', 'fake')[i % 2]}/{i:06d}.jpg" for i in numbers)
        store = SimpleNamespace(uri="shop", skipped=(), read=lambda paths: [b"\xff\xd8\xff"] * len(paths))
        source = FolderSource(store, sorted_names(listed), Reading())
        last, count = "", 0
        for split in source.splits:
            last = ""
            for batch in source.batches(split):
                assert last < batch.names[0] and batch.names == sorted(batch.names)
                last, count = batch.names[-1], count + len(batch.names)
        assert count == source.rows == images
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        peak(1_000)
        assert peak(30_000) < 2 * peak(3_000)
    finally:
        tracemalloc.stop()
