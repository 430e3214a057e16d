"""Photos of one's own: class names are mapped, splits cut by content and source, and what does not fit is one line."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.dataset import Dataset
from components.verify_data.cutting import cut_splits
from tests.components.verify_data.conftest import reencode

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


def contents(folder: Path) -> dict[str, set[tuple[str, int]]]:
    """Split -> (pixel hash, label) of its images."""
    return {
        split: {(row["pixel_sha256"], row["label"]) for row in Dataset(folder).table(split).to_pylist()}
        for split in ("train", "val", "test")
    }


def test_a_folder_without_splits_is_cut_by_content_and_always_alike(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    (mine / "genuine" / "notes.txt").write_text("no photo")
    status, out, err = aidetect(mine, *CUT, *LABELS)
    assert (status, err) == (0, "warning: skipped, for they are no images: 1 x text (genuine/notes.txt)\n")
    assert "test                    8 images: 4 real, 4 ai_generated" in out
    assert "val                     4 images: 2 real, 2 ai_generated" in out
    assert "train                  28 images: 14 real, 14 ai_generated" in out
    assert "test 0.2, val 0.1; copies and near copies stay in one split" in out
    assert f"next              aidetect run --data {tmp_path / 'packed'}" in out
    summary, first = Dataset(tmp_path / "packed").summary, contents(tmp_path / "packed")
    assert summary.labels == {"genuine": "real", "synthetic": "ai_generated"}
    assert summary.fingerprint in out, "whole, to be compared"
    # other names, deeper folders, the same pictures: the same cut
    for i, path in enumerate(sorted(mine.rglob("*.jpg"))):
        place = mine / "2026" / path.parent.name.upper() / f"shoot {i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"ümlaut {i}.jpg")
    shutil.rmtree(tmp_path / "packed")
    assert aidetect(mine, *CUT, *LABELS)[0] == 0
    assert contents(tmp_path / "packed") == first
    assert Dataset(tmp_path / "packed").summary.fingerprint == summary.fingerprint
    assert "shoot 1" in Dataset(tmp_path / "packed").table("train", ["generator"])["generator"].to_pylist()
    # what was packed has splits and names of its own
    (tmp_path / "packed").rename(tmp_path / "first")
    assert aidetect(tmp_path / "first", "--test", "0.2")[2].endswith(
        "brings its own test split, which stays as it is; leave --test away\n"
    )
    assert aidetect(mine, *CUT, *LABELS, "--set", "verify_data.seed=1")[0] == 0
    assert contents(tmp_path / "packed") != first


def test_copies_go_together_and_a_mapping_may_stand_in_the_configuration(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    for i in range(6):
        data = (mine / "genuine" / f"{i:03}.jpg").read_bytes()
        (mine / "genuine" / f"{i:03}-again.jpg").write_bytes(data)
        (mine / "genuine" / f"{i:03}-smaller.jpg").write_bytes(reencode(data, 70))
    own = ["--set", "data.labels={genuine: real, synthetic: ai_generated}"]
    status, _, err = aidetect(mine, *CUT, *own)
    assert status == 0, err
    found: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for row in Dataset(tmp_path / "packed").table(split, ["image"]).to_pylist():
            found.setdefault(Path(row["image"]["path"]).name[:3] + row["image"]["path"][:3], set()).add(split)
    assert sum(len(splits) for splits in found.values()) == len(found) == 2 * EACH
    assert "no splits; cut them: aidetect data import" in aidetect(mine, *own, verb="verify")[2]


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


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_says_where_photos_lie_and_no_source_parts(
    aidetect: Callable[..., tuple[int, str, str]], pristine: Path, tmp_path: Path, suffix: str
) -> None:
    shutil.copytree(pristine, tmp_path / "mine")
    table = write_table(tmp_path / f"photos{suffix}", rows_of(tmp_path / "mine", shops=10))
    status, out, err = aidetect(table, *CUT, *LABELS, "--source", "shop")
    assert (status, err) == (0, "")
    assert "and each of 10 sources, stay in one split" in out
    shops = {
        split: set(Dataset(tmp_path / "packed").table(split, ["source"])["source"].to_pylist())
        for split in ("train", "val", "test")
    }
    assert sum(map(len, shops.values())) == len(set().union(*shops.values())) == 10
    assert len(shops["test"]) == 2 and len(shops["val"]) == 1


def test_a_table_may_bring_its_splits_and_parquet_the_photos(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    rows = rows_of(mine, shops=5)
    split = ["train", "train", "train", "validation", "test"]
    table = write_table(tmp_path / "photos.csv", [{**row, "split": split[i % 5]} for i, row in enumerate(rows)])
    status, out, err = aidetect(table, *LABELS)
    assert (status, err) == (0, "")
    assert "cut  " not in out and "test                    8 images" in out
    shutil.rmtree(tmp_path / "packed")
    assert "brings its own val split" in aidetect(table, "--val", "0.1", *LABELS)[2]
    held: list[dict[str, Any]] = [
        {"image": {"bytes": (tmp_path / row["path"]).read_bytes(), "path": row["path"]}, "label": i % 2}
        for i, row in enumerate(rows[:: EACH // 2] + rows[1 :: EACH // 2])
    ]
    held = [{**row, "label": int("synthetic" in row["image"]["path"])} for row in held]
    table = write_table(tmp_path / "held.parquet", held)
    assert "say what they mean: --label 0=real" in aidetect(table, "--test", "0.3")[2]
    status, out, err = aidetect(table, "--test", "0.3", "--label", "0=real", "--label", "1=ai_generated",
                                "--set", "verify_data.min_rows=1")  # fmt: skip
    assert (status, err) == (0, "")
    assert "train                   4 images: 2 real, 2 ai_generated" in out


def _other_class(mine: Path) -> list[str]:
    (mine / "unsorted").mkdir()
    shutil.copy(mine / "genuine" / "000.jpg", mine / "unsorted")
    return [*CUT, *LABELS]


def _odd_names(mine: Path) -> list[str]:
    odd = mine / "un\nsorted '"
    odd.mkdir()
    shutil.copy(mine / "genuine" / "000.jpg", odd)
    return [*CUT, *LABELS]


def _loose(mine: Path) -> list[str]:
    shutil.copy(mine / "genuine" / "000.jpg", mine / "cover.jpg")
    return [*CUT, *LABELS]


def _both(mine: Path) -> list[str]:
    (mine / "genuine" / "synthetic").mkdir()
    shutil.copy(mine / "genuine" / "000.jpg", mine / "genuine" / "synthetic" / "x.jpg")
    return [*CUT, *LABELS]


def _one_class(mine: Path) -> list[str]:
    shutil.rmtree(mine / "synthetic")
    return [*CUT, *LABELS]


def _one_photo_each(mine: Path) -> list[str]:
    for path in mine.rglob("*.jpg"):
        if path.stem != "000":
            path.unlink()
    return [*CUT, *LABELS]


def _under_both_classes(mine: Path) -> list[str]:
    shutil.copy(mine / "genuine" / "000.jpg", mine / "synthetic" / "same.jpg")
    return [*CUT, *LABELS]


def _damaged(mine: Path) -> list[str]:
    (mine / "genuine" / "000.jpg").write_bytes(b"\xff\xd8 cut off")
    return [*CUT, *LABELS]


def _empty(mine: Path) -> list[str]:
    shutil.rmtree(mine)
    mine.mkdir()
    return [*CUT, *LABELS]


def given_words(*words: str) -> Callable[[Path], list[str]]:
    return lambda _: list(words)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_other_class, "mine/unsorted: unknown class name 'unsorted'; known names: ai, "),
        (_odd_names, 'unknown class name "un\\\\nsorted \'"; known names'),
        (_loose, "mine/cover.jpg: lies in no class folder"),
        (_both, "mine/genuine/synthetic: is named for both classes; rename one of the folders"),
        (_one_class, "no ai_generated images at all; both classes are needed"),
        (_one_photo_each, "test: no real images could be cut: too few different pictures"),
        (_under_both_classes, "genuine/000.jpg: is real here and ai_generated as synthetic/same.jpg"),
        (_damaged, "1 images that do not decode (max_corrupt_share allows 0): genuine/000.jpg: "),
        (_empty, "no files there"),
        (given_words(*LABELS), "brings no splits; cut them: aidetect data import "),
        (given_words(*CUT), "unknown class name 'genuine', 'synthetic'; known names: ai, "),
        (given_words(*CUT), "map it: --label genuine=real (or ai_generated)"),
        (given_words("--val", "0.1", *LABELS), "brings no splits; cut them: "),
        (given_words("--test", "0", *LABELS), "--test 0: give a share between 0 and 1"),
        (given_words("--test", "1", *LABELS), "--test 1: give a share between 0 and 1"),
        (given_words("--test", "nan", *LABELS), "--test nan: give a share between 0 and 1"),
        (given_words("--test", "-0.2", *LABELS), "--test -0.2: give a share between 0 and 1"),
        (given_words("--test", "0.6", "--val", "0.4", *LABELS), "--test 0.6 and --val 0.4 leave nothing to train on"),
        (given_words("--test", "much", *LABELS), "Invalid value for '--test': Input should be a valid number"),
        (given_words(*CUT, *LABELS, "--label", "Genuine=ai"), "'Genuine' is mapped twice: to real and to ai_generated"),
        (given_words(*CUT, *LABELS, "--label", "genuine=real"), "'genuine' is mapped twice: to real and to real"),
        (given_words(*CUT, "--label", "genuine"), "'genuine': write NAME=CLASS, e.g. --label genuine=real"),
        (given_words(*CUT, "--label", "genuine=cat"), "'cat' is no class; the classes are real and ai_generated"),
        (given_words(*CUT, "--label", "real=fake"), "'real' is itself a class and cannot mean the other one"),
        (given_words(*CUT, *LABELS, "--set", "data.labels={a: b}"), "'b' is no class"),
        (given_words(*CUT, *LABELS, "--source", "shop"), "a folder has no column 'shop'; write --source folder"),
        (given_words(*CUT, *LABELS, "--source", "folder"), "test: no real images could be cut: too few different"),
        (given_words(*CUT, *LABELS, "--set", "verify_data.min_rows=5"), "test: only 4 real images, at least 5 are"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_dataset(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path, spoil: Callable[[Path], list[str]],
    expected: str,
) -> None:  # fmt: skip
    status, out, err = aidetect(mine, *spoil(mine))
    assert (status, out) == (1, "")
    assert expected in err
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and "Traceback" not in err
    left = {path.name for path in (tmp_path / "packed").iterdir()} if (tmp_path / "packed").exists() else set()
    assert left <= {"report.html", "quarantine.parquet"}
    assert bool(left) == ("report.html" in err), "what was read whole leaves its report, and says so"


def test_nothing_that_lies_in_the_way_is_written_over(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    assert "lies in " in aidetect(mine, *CUT, *LABELS, "-o", str(mine / "packed"))[2]
    assert "is not empty; give a new folder" in aidetect(mine, *CUT, *LABELS, "-o", str(mine))[2]
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train.parquet").write_bytes(b"mine")
    assert "packed: is not empty; give a new folder" in aidetect(mine, *CUT, *LABELS)[2]
    assert (tmp_path / "packed" / "train.parquet").read_bytes() == b"mine"
    (tmp_path / "packed" / "train.parquet").unlink()
    refused = aidetect(mine, *CUT, *LABELS, "--set", "verify_data.min_rows=5")
    assert refused[0] == 1 and (tmp_path / "packed" / "report.html").exists()
    assert aidetect(mine, *CUT, *LABELS)[0] == 0, "what a refused import left is no obstacle"


def _cells(change: dict[str, Any]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [rows[0], {**rows[1], **change}, *rows[2:]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_cells({"path": "mine/gone.jpg"}), "photos.csv: no such image: mine/gone.jpg (line 3)"),
        (_cells({"path": ""}), "photos.csv line 3: has no path"),
        (_cells({"label": " "}), "photos.csv line 3: has no label"),
        (_cells({"label": "kitten"}), "photos.csv line 3: unknown class name 'kitten'"),
        (_cells({"path": "https://shop.example/1.jpg"}), "is an address; fetch the photos first"),
        (_cells({"path": "mine/genuine/000.jpg"}), "photos.csv line 3: mine/genuine/000.jpg is named twice"),
        (_cells({"path": "mine/genuine/000.jpg", "label": "synthetic"}), "genuine/000.jpg stands under both classes"),
        (_cells({"path": "mine"}), "no such image: mine (line 3)"),
        (lambda rows: [{"p": 1, **{k: v for k, v in row.items() if k != "path"}} for row in rows], "no path column"),
        (lambda rows: [{k: v for k, v in row.items() if k != "label"} for row in rows], "no label column"),
        (lambda rows: [{k: v for k, v in row.items() if k != "shop"} for row in rows], "no column 'shop' (--source)"),
        (lambda rows: [{**row, "shop": "one"} for row in rows], "too few different pictures or sources"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_names_the_line(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], expected: str,
) -> None:  # fmt: skip
    table = write_table(tmp_path / "photos.csv", change(rows_of(mine, shops=10)))
    status, out, err = aidetect(table, *CUT, *LABELS, "--source", "shop")
    assert (status, out) == (1, "")
    assert expected in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "no path column"),
        (b"path,label\n", "names no images"),
        (b"path,label,path\n", "two columns have one name"),
        (b"path,label\na.jpg\n", "line 2: 1 cells where the header names 2"),
        (b"path,label\n\xff\xfe,real\n", "not UTF-8"),
        (b'path,label\n"' + b"x" * 200_000 + b'",real\n', "not a readable table"),
        (b"path,label\na.jpg,real\n", "no such image: a.jpg (line 2)"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    aidetect: Callable[..., tuple[int, str, str]], tmp_path: Path, text: bytes, expected: str
) -> None:
    (tmp_path / "photos.csv").write_bytes(text)
    status, _, err = aidetect(tmp_path / "photos.csv", *CUT)
    assert status == 1 and expected in err and len(err.splitlines()) == 1
    (tmp_path / "photos.xlsx").write_bytes(text)
    assert "give the folder of the images, or a table (.csv, .tsv, .parquet)" in aidetect(tmp_path / "photos.xlsx")[2]
    (tmp_path / "photos.parquet").write_bytes(text)
    assert "not a readable Parquet file" in aidetect(tmp_path / "photos.parquet", *CUT)[2]


def test_the_table_counts_what_the_problems_judge(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    for i, path in enumerate(sorted(mine.rglob("*.jpg"))):
        place = tmp_path / "split" / ("train" if i % EACH < 12 else "test") / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    words = ["--set", "data.labels={genuine: real, synthetic: ai_generated}", "--set", "verify_data.min_rows=12"]
    status, out, err = aidetect(tmp_path / "split", *words, verb="verify")
    assert status == 1
    assert "train                  22 images: 11 real, 11 ai_generated" in out
    assert "val                     2 images: 1 real, 1 ai_generated" in out
    assert "problem: train: only 11 real images, at least 12 are needed (min_rows)" in err
    for path in (tmp_path / "split" / "train").rglob("*.jpg"):
        if path.stem != "000":
            path.unlink()
    status, out, err = aidetect(tmp_path / "split", *words, "--json", verb="verify")
    assert json.loads(out)["summary"]["splits"]["train"]["by_class"] == {"real": 1, "ai_generated": 1}
    assert "val: no real images could be cut: too few different pictures or sources" in json.loads(out)["problems"]


@given(st.integers(0, 2**32 - 1), st.integers(2, 150), st.integers(1, 60), st.floats(0.05, 0.6), st.floats(0.05, 0.35))
@settings(max_examples=60, deadline=None)
def test_groups_never_part_shares_are_reached_to_a_group_and_something_is_left(
    seed: int, n: int, groups: int, test: float, val: float
) -> None:
    generator = np.random.default_rng(seed)
    digests = np.frombuffer(b"".join(int(i).to_bytes(32, "big") for i in generator.permutation(n)), "S32")
    labels = generator.integers(0, 2, n)
    group = generator.integers(0, groups, n)
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    links = (np.arange(n), first[inverse])
    found = cut_splits(digests, labels, links, {"test": test, "val": val}, seed=3)
    assert not (found["test"] & found["val"]).any()
    split = found["test"] + 2 * found["val"]
    assert (split == split[first[inverse]]).all(), "what is linked stays together"
    for label in (0, 1):
        mine = labels == label
        holding = np.unique(group[mine])
        if len(holding) >= 3:
            assert (split[mine] == 0).any(), "something is left to train on"
        largest = np.bincount(inverse).max()
        assert found["test"][mine].sum() <= max(1, np.ceil(test * mine.sum())) + largest
    order = generator.permutation(n)
    place = np.argsort(order)
    again = cut_splits(digests[order], labels[order], (place[links[0]], place[links[1]]), {"test": test, "val": val}, 3)
    assert all((again[name] == found[name][order]).all() for name in found), "the order of rows does not matter"
