"""Memory is flat in the dataset's size: one more image adds a few numbers, never names, digests' digits or bytes."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.bench.bench_verify_data import growth_kb
from tests.untraced import untraced

ROOT = Path(__file__).parents[3]
FEW, MANY = 6_000, 24_000
MOST_KB = 0.5
"""An image; 0.1 to 0.2 kB are measured, 3.2 kB were while measurements stood in memory and files were read ahead."""


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
