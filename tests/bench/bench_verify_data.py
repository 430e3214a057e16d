"""verify_data's rate in images per second of CPU time, and its peak memory at 1x and 10x the data.

`python -m tests.bench.bench_verify_data` prints one line a size; the images lie in shards of 10,000, and
copies planted in other shards are looked for. Each size runs in a process of its own, because peak memory never falls
again. The target is 5,000 images/s/core at 32 px. Two peaks are told: resident memory, of which
pages of mapped files are a part that the kernel takes back when it needs them, and anonymous memory, which it cannot
take back and which therefore is what a container's limit must hold.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ARCHIVE = Path(__file__).resolve().parents[1] / "sample64" / "cifake32_layout.tar.gz"
TARGET = 5000.0
SAMPLE_EVERY_S = 0.005
SHARD_ROWS = 10_000
SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.string())])
PLANTED = "planted.json"


def make_data(root: Path, images: int) -> dict[str, str]:
    """Shards of distinct 32 px JPEGs: the archive's pictures, shifted and re-encoded until there are enough.

    A thousandth of the training images are planted in the test split as well, as they are or encoded again.

    Returns:
        Names of those training images, and as what they must be found.
    """
    with tarfile.open(ARCHIVE) as archive:
        originals = [
            ("/FAKE/" in member.name, np.asarray(Image.open(opened).convert("RGB")))
            for member in archive
            if member.name.endswith(".jpg") and (opened := archive.extractfile(member))
        ]
    generator = np.random.default_rng(0)
    copies: list[dict[str, Any]] = []
    planted: dict[str, str] = {}
    for split, share in (("train", 0.8), ("test", 0.2)):
        count = int(images * share)
        shards = -(-count // SHARD_ROWS)
        for shard in range(shards):
            stem = f"{split}-{shard:05d}-of-{shards:05d}"
            rows = []
            for i in range(min(SHARD_ROWS, count - shard * SHARD_ROWS)):
                fake, pixels = originals[int(generator.integers(len(originals)))]
                shifted = np.roll(pixels, generator.integers(0, 32, 2), axis=(0, 1)).astype(np.int16)
                noisy = (shifted + generator.normal(0, 12, (4, 4, 3)).repeat(8, 0).repeat(8, 1)).clip(0, 255)
                label = "ai_generated" if fake else "real"
                rows.append(_row(noisy.astype(np.uint8), f"{i}.jpg", label))
                if split == "train" and i % 1000 == 500:
                    kind = "exact_duplicate" if i % 2000 == 500 else "near_duplicate"
                    planted[f"{stem}/{i} ({i}.jpg)"] = kind
                    quality = 90 if kind == "exact_duplicate" else 96
                    copies.append(_row(noisy.astype(np.uint8), f"copy{len(copies)}.jpg", label, quality))
            if split == "test":
                # far from the shard that they were taken from, and spread over all of these
                rows += copies[shard::shards]
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), root / f"{stem}.parquet", compression="none")
    return planted


def _row(pixels: np.ndarray, path: str, label: str, quality: int = 90) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return {"image": {"bytes": buffer.getvalue(), "path": path}, "label": label}


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split(maxsplit=1)[0]) / 1024


@contextmanager
def sampled_anonymous_mb() -> Iterator[list[float]]:
    """The highest anonymous memory seen while the block runs, as the list's only item: the kernel keeps no mark."""
    peak, done = [anonymous_mb()], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            peak[0] = max(peak[0], anonymous_mb())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], anonymous_mb())


def measure(root: Path) -> dict[str, float]:
    """Verify and pack `root` in this process with one worker; what a core does in a second and peak memory."""
    from components.verify_data.config import VerifyDataConfig
    from components.verify_data.stage import verify_and_pack

    tolerant = VerifyDataConfig(
        workers=1, max_exact_duplicate_share=1, max_near_duplicate_share=1, max_label_conflict_share=1
    )
    with tempfile.TemporaryDirectory(dir=root) as scratch, sampled_anonymous_mb() as anonymous:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        findings, _ = verify_and_pack(str(root), tolerant, Path(scratch) / "out", Path(scratch) / "report.html")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {(offender.name, offender.kind) for offender in findings.offenders}
    listed = root.with_name(PLANTED)
    planted = json.loads(listed.read_text()) if listed.exists() else {}
    return {
        "planted": len(planted),
        "missed": len(set(planted.items()) - found),
        "images": findings.rows,
        "images_per_cpu_s": findings.rows / cpu,
        "wall_s": wall,
        "before_mb": before / 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "anonymous_mb": anonymous[0],
    }


def growth_kb(small: dict[str, float], large: dict[str, float], peak: str) -> float:
    """What one more image adds to a peak."""
    return (large[peak] - small[peak]) * 1024 / (large["images"] - small["images"])


def run(images: int = 6000, factor: int = 10) -> list[dict[str, float]]:
    """Measure at `images` and `factor` times as many."""
    results = []
    for count in (images, images * factor):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "data"
            root.mkdir()
            root.with_name(PLANTED).write_text(json.dumps(make_data(root, count)))
            command = [sys.executable, "-m", "tests.bench.bench_verify_data", "--measure", str(root)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7200)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    return results


def main() -> None:
    """Print the rates and the growth of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    small, large = run(options.images, options.factor)
    for result in (small, large):
        print(
            f"verify_data {result['images']:>9,.0f} images of 32 px: {result['images_per_cpu_s']:,.0f} images/s/core "
            f"(target {TARGET:,.0f}), {result['wall_s']:.1f} s, peak {result['peak_mb']:.0f} MB "
            f"({result['before_mb']:.0f} MB of it before the first image), "
            f"{result['anonymous_mb']:.0f} MB of it anonymous; of {result['planted']:.0f} copies "
            f"planted in other shards {result['missed']:.0f} were missed"
        )
    print(
        f"memory growth: {growth_kb(small, large, 'anonymous_mb'):.2f} kB of anonymous memory an image, "
        f"{growth_kb(small, large, 'peak_mb'):.2f} kB with pages of mapped files; "
        f"an image is {32 * 32 * 3 / 1024:.0f} kB decoded"
    )


if __name__ == "__main__":
    main()
