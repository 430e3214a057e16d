"""Small real datasets in every layout, cut from the shipped sample."""

import io
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.archives import unpack

ROWS = {"train": 60, "val": 12, "test": 50}
"""Images of each class."""


def reencode(data: bytes, quality: int = 80, mirror: bool = False, fmt: str = "JPEG") -> bytes:
    """The same picture in another file."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    buffer = io.BytesIO()
    image.save(buffer, fmt, quality=quality)
    return buffer.getvalue()


def write_folder(root: Path, sample_dir: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """`{split}/{class}/NNN.jpg` with the sample's own bytes."""
    for split in splits:
        rows = pq.read_table(sample_dir / f"{split}.parquet", columns=["image", "label"]).to_pylist()
        for label, name in enumerate(("real", "ai_generated")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i, row in enumerate([row for row in rows if row["label"] == label][: ROWS[split]]):
                (folder / f"{i:03}.jpg").write_bytes(row["image"]["bytes"])
    return root


@pytest.fixture
def folder(tmp_path: Path, sample_dir: Path) -> Path:
    """A clean folder dataset, the test's own to spoil."""
    return write_folder(tmp_path / "data", sample_dir)


@pytest.fixture(scope="session")
def cifake_dir(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """The shipped archive in CIFAKE's layout, unpacked. Read only."""
    root = tmp_path_factory.mktemp("cifake")
    unpack(sample_dir / "cifake32_layout.tar.gz", root)
    return root / "sample_cifake32"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    """Run `aidetect data import` in process: (exit status, standard error, dataset folder)."""
    from pipelines.cli.app import run_app

    numbers = count()

    def call(uri: Path | str, config: str = "{}") -> tuple[int, str, Path]:
        out = tmp_path / f"dataset{next(numbers)}"
        sets = [part for key, value in json.loads(config).items() for part in ("--set", f"verify_data.{key}={value}")]
        status = run_app(["data", "import", str(uri), "--output", str(out), *sets])
        return status, capsys.readouterr().err, out

    return call
