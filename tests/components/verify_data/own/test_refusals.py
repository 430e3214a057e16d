"""Own photos that do not fit: one line that says why, and nothing left half-written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.verify_data.writing import alone
from tests.components.verify_data.own.conftest import CUT, LABELS, rows_of, write_table


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


def test_what_systems_leave_beside_photos_is_no_photo(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path
) -> None:
    for folder in ("@eaDir/genuine", "__MACOSX/mine", "synthetic/__macosx"):
        (mine / folder).mkdir(parents=True)
        shutil.copy(mine / "genuine/000.jpg", mine / folder / "thumbnail.jpg")
    status, _, err = aidetect(mine, *CUT, *LABELS)
    assert status == 0 and "3 x system's folder (@eaDir, __MACOSX, synthetic/__macosx)" in err


def test_the_folder_of_one_class_names_the_one_above(aidetect: Callable[..., tuple[int, str, str]], mine: Path) -> None:
    assert f"named for its class; did you mean {mine}?" in aidetect(mine / "genuine", *CUT, *LABELS)[2]


def test_what_a_killed_import_left_is_no_dataset_and_no_obstacle(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    assert aidetect(mine, *CUT, *LABELS)[0] == 0
    (packed / "dataset.json").unlink()
    (packed / ".spool").mkdir()
    (packed / ".test-00001.partial").touch()
    assert "an import into it is under way, or was killed; import there once more" in aidetect(packed, verb="verify")[2]
    (packed / "notes.txt").touch()
    assert "packed: is not empty; give a new folder" in aidetect(mine, *CUT, *LABELS)[2]
    (packed / "notes.txt").unlink()
    with alone(packed):
        assert "packed: another import writes there now; wait for it" in aidetect(mine, *CUT, *LABELS)[2]
    assert aidetect(mine, *CUT, *LABELS)[0] == 0
    assert not list(packed.glob(".*"))
    assert "packed: already holds a dataset" in aidetect(mine, *CUT, *LABELS)[2]


def test_parquet_files_of_which_some_are_missing_are_refused(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    photos = [mine / folder / f"{i:03}.jpg" for i in range(20) for folder in ("genuine", "synthetic")]
    table = pa.table({"image": [p.read_bytes() for p in photos], "label": [p.parent.name for p in photos]})
    (tmp_path / "shards").mkdir()
    for number in (0, 2):
        pq.write_table(table, tmp_path / f"shards/train-{number:05}-of-00003.parquet")
    missing = aidetect(tmp_path / "shards", *CUT, *LABELS)[2]
    assert "1 of the 3 files train-*-of-00003.parquet are missing; fetch them, or name the one file" in missing
    assert aidetect(tmp_path / "shards/train-00000-of-00003.parquet", *CUT, *LABELS)[0] == 0


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
        (_cells({"path": "./mine//genuine/000.jpg"}), "photos.csv line 3: mine/genuine/000.jpg is named twice"),
        (_cells({"path": "mine\\genuine\\000.jpg"}), "000.jpg (line 3); write / in place of \\"),
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
        (b"", "found nothing); name it in the table's first line"),
        (b"sep=;\r\npath;label\r\na.jpg;real\r\n", "no such image: a.jpg (line 3); paths are meant from "),
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


def test_a_table_whose_end_alone_is_whole_is_refused(
    aidetect: Callable[..., tuple[int, str, str]], mine: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "photos.parquet", rows_of(mine, shops=10))
    table.write_bytes(table.read_bytes()[:4] + bytes(60) + table.read_bytes()[64:])
    status, _, err = aidetect(table, *CUT, *LABELS)
    assert status == 1 and "photos.parquet: not a readable Parquet file" in err and len(err.splitlines()) == 1
    write_table(table, [{**row, "Path": "x.jpg"} for row in rows_of(mine, shops=10)])
    assert "photos.parquet: two columns have one name (path, label, shop, path)" in aidetect(table, *CUT, *LABELS)[2]
