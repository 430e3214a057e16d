"""A seller's folder of photos without splits, and tables of them."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LABELS = ["--label", "genuine=real", "--label", "synthetic=ai_generated"]
CUT = ["--test", "0.2", "--val", "0.1"]
EACH = 20


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """`mine/{genuine,synthetic}/*.jpg`, without splits. Read only."""
    root = tmp_path_factory.mktemp("own") / "mine"
    rows = pq.read_table(sample_dir / "train.parquet", columns=["image", "label"]).to_pylist()
    for label, name in enumerate(("genuine", "synthetic")):
        (root / name).mkdir(parents=True)
        for i, row in enumerate([row for row in rows if row["label"] == label][:EACH]):
            (root / name / f"{i:03}.jpg").write_bytes(row["image"]["bytes"])
    return root


@pytest.fixture
def mine(pristine: Path, tmp_path: Path) -> Path:
    """The same, the test's own to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "mine"))


@pytest.fixture
def aidetect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """`aidetect data import ... -o packed`: (exit status, output, error)."""
    from pipelines.cli.app import run_app

    def call(source: Path, *words: str, verb: str = "import") -> tuple[int, str, str]:
        output = ["-o", str(tmp_path / "packed")] if verb == "import" else []
        sets = ["--set", "verify_data.min_rows=2", "--set", "verify_data.workers=1"]
        status = run_app(["data", verb, str(source), *output, *sets, *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def rows_of(mine: Path, shops: int) -> list[dict[str, str]]:
    names = sorted(str(path.relative_to(mine.parent)) for path in mine.rglob("*.jpg"))
    return [{"path": name, "label": name.split("/")[1], "shop": f"shop {i % shops}"} for i, name in enumerate(names)]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="", encoding="utf-8-sig") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ";")
        writer.writeheader()
        writer.writerows(rows)
    return path
