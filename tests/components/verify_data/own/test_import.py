"""Photos of one's own: class names are mapped, splits cut by content and source, and what does not fit is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.dataset import Dataset
from components.verify_data.classes import ClassNames
from components.verify_data.cutting import cut_splits, linked
from tests.components.verify_data.conftest import reencode
from tests.components.verify_data.own.conftest import CUT, EACH, LABELS, rows_of, write_table


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
    status, _, err = aidetect(mine, *CUT, *own, "--label", "studio=real", "--label", "Genuine=real")
    assert (status, err) == (0, "warning: --label studio: no image there is of a class of that name\n")
    found: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for row in Dataset(tmp_path / "packed").table(split, ["image"]).to_pylist():
            found.setdefault(Path(row["image"]["path"]).name[:3] + row["image"]["path"][:3], set()).add(split)
    assert sum(len(splits) for splits in found.values()) == len(found) == 2 * EACH
    assert "no splits; cut them: aidetect data import" in aidetect(mine, *own, verb="verify")[2]


def test_a_name_is_one_name_however_its_accents_are_typed() -> None:
    assert ClassNames({"Café ": "real"}).id("CAFE\u0301") == 0


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
@settings(max_examples=60)
def test_groups_never_part_shares_are_reached_to_a_group_and_something_is_left(
    seed: int, n: int, groups: int, test: float, val: float
) -> None:
    generator = np.random.default_rng(seed)
    digests = np.frombuffer(b"".join(int(i).to_bytes(32, "big") for i in generator.permutation(n)), "S32")
    labels = generator.integers(0, 2, n)
    group = generator.integers(0, groups, n)
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    links = (np.arange(n), first[inverse])
    found = cut_splits(digests, labels, linked(*links), {"test": test, "val": val}, seed=3)
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
    again = cut_splits(
        digests[order], labels[order], linked(place[links[0]], place[links[1]]), {"test": test, "val": val}, 3
    )
    assert all((again[name] == found[name][order]).all() for name in found), "the order of rows does not matter"
