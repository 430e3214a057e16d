"""A shop's folder, and jobs that score it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from components.catalogue.config import CatalogueConfig
from components.catalogue.executor import Scored, Shard
from components.catalogue.scoring import Scorer, Work
from components.catalogue.stage import score_catalogue
from components.catalogue.summary import Summary

Rows = list[dict[str, object]]


def picture(path: Path, seed: int, side: int = 48) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)
    return path


def make_shop(root: Path) -> Path:
    """A shop's folder: 40 photos in three folders, and what else lies in such folders."""
    for number in range(40):
        picture(root / f"{'abc'[number % 3]}" / f"{number:02d}.{'jpg' if number % 2 else 'png'}", number)
    (root / "a/broken.jpg").write_bytes((root / "a/03.jpg").read_bytes()[:300])
    (root / "a/empty.jpg").write_bytes(b"")
    (root / "b/notes.txt").write_text("not a photo")
    (root / "b/huge.jpg").write_bytes(b"\xff\xd8\xff" + bytes(300_000))
    os.mkfifo(root / "b/pipe.jpg")
    (root / "c/loop").symlink_to(root)
    (root / "c/.hidden.jpg").write_bytes(b"")
    os.close(os.open(os.fsencode(root) + b"/c/\xff\xfe.jpg", os.O_CREAT | os.O_WRONLY))
    return root


def rows_of(output: Path) -> Rows:
    parts = sorted((output / "parts").glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def here(work: Work, shards: Iterator[Shard]) -> Iterator[Scored]:
    """In this process: where a test is about rows, not about workers."""
    scorer = Scorer(work)
    for number, entries in shards:
        yield number, scorer.score(entries)


def score(source: Path | str, output: Path | str, bundle: Path, **knobs: object) -> Summary:
    config = CatalogueConfig(**{"shard_photos": 7, "workers": 2, "max_file_bytes": 200_000} | knobs)
    return score_catalogue(str(source), str(output), bundle, "7", config, executor=here)


def command(source: Path | str, output: Path, bundle: Path, *more: str) -> list[str]:
    knobs = ["--set", "catalogue.shard_photos=2", "--workers", "2"]
    entry = "import sys; from pipelines.cli import main; main()"
    return [sys.executable, "-c", entry, "score", str(source), "-o", str(output), "--model", str(bundle), *knobs, *more]
