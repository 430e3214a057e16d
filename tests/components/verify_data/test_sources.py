"""Every layout ends in the same dataset; what is no dataset is refused in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.dataset import Dataset, SplitSummary
from components.verify_data.config import VerifyDataConfig
from components.verify_data.importing import download, import_dataset
from components.verify_data.stage import verify, verify_and_pack
from serving.platform.errors import StageError
from tests.components.verify_data.conftest import write_folder

Run = Callable[..., tuple[int, str, Path]]


def _hub_metadata(names: list[str]) -> dict[str, str]:
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _hub_layout(root: Path, sample_dir: Path, names: list[str]) -> Path:
    """A dataset repository as the hub lays it out: shards, ClassLabel names in any order, no validation split."""
    (root / "data").mkdir(parents=True)
    for split, shards in (("train", 2), ("test", 1)):
        table = pq.read_table(sample_dir / f"{split}.parquet", columns=["image", "label"])
        ids = [names.index("REAL" if label == 0 else "FAKE") for label in table["label"].to_pylist()]
        table = table.set_column(1, "label", pa.array(ids)).replace_schema_metadata(_hub_metadata(names))
        size = table.num_rows // shards
        for i in range(shards):
            pq.write_table(table.slice(i * size, size), root / "data" / f"{split}-{i:05}-of-{shards:05}.parquet")
    return root


@cache
def _sample_test_split(sample_dir: Path) -> SplitSummary:
    return verify(str(sample_dir), VerifyDataConfig())[1].splits["test"]


@pytest.mark.parametrize(
    ("scheme", "names"), [("", ["FAKE", "REAL"]), ("hf://", ["FAKE", "REAL"]), ("hf://", ["REAL", "FAKE"])]
)
def test_class_names_decide_not_their_order(tmp_path: Path, sample_dir: Path, scheme: str, names: list[str]) -> None:
    hub = _hub_layout(tmp_path / "hub", sample_dir, names)
    findings, summary = verify(f"{scheme}{hub}", VerifyDataConfig(val_fraction=0.1))
    assert findings.problems == []
    assert findings.splits["train"].rows == 3200
    assert {name: split.by_class for name, split in summary.splits.items()} == {
        "train": {"real": 1440, "ai_generated": 1440},
        "val": {"real": 160, "ai_generated": 160},
        "test": {"real": 600, "ai_generated": 600},
    }
    assert summary.splits["test"] == _sample_test_split(sample_dir), "the official test split is kept, labels by name"


def test_a_hub_dataset_stored_as_files_is_read_too(run: Run, cifake_dir: Path) -> None:
    status, error, out = run(f"hf://{cifake_dir}")
    assert (status, error) == (0, "")
    table = Dataset(out).table("test")
    kept = {path.read_bytes() for path in cifake_dir.glob("test/*/*.jpg")}
    assert {row["bytes"] for row in table.column("image").to_pylist()} == kept


def test_a_train_split_without_one_readable_image_is_refused_with_its_reason(
    run: Run, cifake_dir: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(cifake_dir, tmp_path / "damaged")
    for path in copied.glob("train/*/*.jpg"):
        path.write_bytes(b"damaged")
    status, error, _ = run(copied)
    assert status == 1
    assert "Traceback" not in error
    assert "train" in error and "images" in error


def test_cifake_layout_end_to_end(run: Run, cifake_dir: Path) -> None:
    status, error, out = run(cifake_dir)
    assert (status, error) == (0, "warning: skipped, for they are no images: 1 x text (manifest.csv)\n")
    dataset = Dataset(out)
    assert {name: split.by_class for name, split in dataset.summary.splits.items()} == {
        "train": {"real": 450, "ai_generated": 450},
        "val": {"real": 50, "ai_generated": 50},
        "test": {"real": 200, "ai_generated": 200},
    }
    for row in dataset.table("val").to_pylist():
        assert row["label"] == int("/FAKE/" in row["image"]["path"])
        assert row["image"]["bytes"] == (cifake_dir / row["image"]["path"]).read_bytes()


def test_a_packed_dataset_is_a_source_and_keeps_its_fingerprint(run: Run, folder: Path, tmp_path: Path) -> None:
    _, _, out = run(folder)
    packed = tmp_path / "again"
    _, again = import_dataset(str(out), packed, VerifyDataConfig())
    assert again.fingerprint == Dataset(out).summary.fingerprint
    assert again.splits == Dataset(out).summary.splits


def test_a_large_split_is_packed_as_several_files_of_the_same_rows(sample_dir: Path, tmp_path: Path) -> None:
    # without a val split, so that rows are dealt out anew
    folder, out, report = tmp_path / "large", tmp_path / "packed", tmp_path / "report.html"
    folder.mkdir()
    for split, source, step in (("train", "val", 1), ("test", "test", 15)):
        rows = pq.read_table(sample_dir / f"{source}.parquet")
        pq.write_table(rows.take(list(range(0, len(rows), step))), folder / f"{split}.parquet")
    verify_and_pack(str(folder), VerifyDataConfig(file_bytes=65536), out, report)
    packed = Dataset(out)
    found = [path.name for path in packed.paths("train")]
    assert found == [f"train-{number:05d}-of-{len(found):05d}.parquet" for number in range(len(found))]
    assert len(found) > 1 and not (out / "train.parquet").exists()
    several = {split: packed.table(split) for split in ("train", "val", "test")}
    assert pa.Table.from_batches(packed.batches("train", rows=7)).equals(several["train"])
    (out / found[0]).unlink()
    with pytest.raises(StageError, match="files of the split train are missing"):
        packed.table("train")
    (out / ".train-00000.partial").write_bytes(b"of a process that was killed")
    verify_and_pack(str(folder), VerifyDataConfig(), out, report)
    assert sorted(path.name for path in out.glob("[.tv]*")) == ["test.parquet", "train.parquet", "val.parquet"]
    assert {split: Dataset(out).table(split) for split in several} == several
    assert Dataset(out).summary == packed.summary


def test_packed_splits_load_with_datasets(run: Run, folder: Path) -> None:
    import datasets

    _, _, out = run(folder)
    loaded = datasets.Dataset.from_parquet(str(out / "test.parquet"), cache_dir=str(out / "cache"))
    assert loaded.features["label"].names == ["real", "ai_generated"]
    assert loaded[0]["image"].size == (64, 64)


def test_generator_folders_name_the_generator(run: Run, folder: Path) -> None:
    (folder / "train/ai_generated/sdxl").mkdir()
    for path in sorted((folder / "train/ai_generated").glob("*.jpg"))[:20]:
        path.rename(path.parent / "sdxl" / path.name)
    status, _, out = run(folder)
    assert status == 0
    rows = Dataset(out).table("train", ["generator", "label"]).to_pylist()
    assert sum(row["generator"] == "sdxl" for row in rows) == 20
    assert {row["label"] for row in rows if row["generator"] == "sdxl"} == {1}


def test_the_limit_takes_both_classes_alike(run: Run, folder: Path) -> None:
    status, _, out = run(folder, json.dumps({"limit": 20, "min_rows": 10}))
    assert status == 0
    assert {name: split.by_class for name, split in Dataset(out).summary.splits.items()} == {
        name: {"real": 10, "ai_generated": 10} for name in ("train", "val", "test")
    }


def _missing_folder(root: Path) -> str:
    shutil.rmtree(root)
    return "no such folder"


def _empty_folder(root: Path) -> str:
    shutil.rmtree(root)
    root.mkdir()
    return "no files there"


def _no_images(root: Path) -> str:
    for path in root.glob("*/*/*.jpg"):
        path.with_suffix(".txt").write_text("bytes decide, not the name")
        path.unlink()
    return "holds no images"


def _class_missing(root: Path) -> str:
    shutil.rmtree(root / "train/real")
    return "train: no real images; both classes are needed"


def _test_missing(root: Path) -> str:
    shutil.rmtree(root / "test")
    return "no test split (found: train, val)"


def _unknown_class(root: Path) -> str:
    (root / "train/real").rename(root / "train/photo")
    return "train/photo: unknown class name 'photo'; known names: ai, ai-generated, ai_generated, fake, real"


def _unknown_split(root: Path) -> str:
    (root / "val").rename(root / "holdout")
    return "images belong in {train,val,test}"


def _one_level_too_high(root: Path) -> str:
    inner = root / "inner"
    inner.mkdir()
    for split in ("train", "val", "test"):
        (root / split).rename(inner / split)
    return f"did you mean {inner}?"


def _too_few(root: Path) -> str:
    for path in sorted((root / "test/real").iterdir())[20:]:
        path.unlink()
    return "test: only 20 real images, at least 25 are needed (min_rows)"


def _a_file(root: Path) -> str:
    shutil.rmtree(root)
    root.write_text("")
    return "is a file; give the folder of the images, or a table (.csv, .tsv, .parquet)"


@pytest.mark.parametrize(
    "spoil",
    [
        _missing_folder,
        _empty_folder,
        _no_images,
        _class_missing,
        _test_missing,
        _unknown_class,
        _unknown_split,
        _one_level_too_high,
        _too_few,
        _a_file,
    ],
)
def test_what_is_no_dataset_is_refused_in_one_line(run: Run, folder: Path, spoil: Callable[[Path], str]) -> None:
    expected = spoil(folder)
    status, error, out = run(folder)
    assert status == 1
    assert expected in error
    assert str(folder) in error
    assert error.count("\n") == 1
    assert not list(out.glob("t*.parquet"))
    assert not (out / "dataset.json").exists()


def _parquet(root: Path, label: pa.Array, metadata: dict[str, str] | None = None, image: str = "image") -> Path:
    root.mkdir()
    images = pa.array([{"bytes": b"x", "path": "a.jpg"}] * len(label))
    table = pa.table({image: images, "label": label}).replace_schema_metadata(metadata)
    for split in ("train", "test"):
        pq.write_table(table, root / f"{split}.parquet")
    return root


@pytest.mark.parametrize(
    ("label", "metadata", "expected"),
    [
        (pa.array([0, 1]), None, "say what they mean: --label 0=real --label 1=ai_generated"),
        (pa.array([0, 1]), _hub_metadata(["cat", "dog"]), "unknown class name 'cat'"),
        (pa.array([0, 2]), _hub_metadata(["real", "fake"]), "train/1 (a.jpg): label 2 names no class"),
        (pa.array(["real", "kitten"]), None, "train/1 (a.jpg): unknown class name 'kitten'"),
        (pa.array(["real", None]), None, "train/1 (a.jpg): has no label"),
        (pa.array([0.0, 1.0]), None, "has type double"),
    ],
)
def test_parquet_labels_that_cannot_be_trusted(
    run: Run, tmp_path: Path, label: pa.Array, metadata: dict[str, str] | None, expected: str
) -> None:
    status, error, _ = run(_parquet(tmp_path / "data", label, metadata))
    assert status == 1
    assert expected in error


def test_parquet_without_image_column_or_split_name_or_footer(run: Run, tmp_path: Path) -> None:
    root = _parquet(tmp_path / "data", pa.array(["real", "fake"]), image="photo")
    assert "no image column" in run(root)[1]
    (root / "train.parquet").write_bytes(b"PAR1 cut off")
    assert "train.parquet: not a readable Parquet file" in run(root)[1]
    (root / "train.parquet").rename(root / "everything.parquet")
    assert "names no split" in run(root)[1]


def test_parquet_rows_are_named_by_split_row_and_path(run: Run, tmp_path: Path, sample_dir: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for split in ("train", "val", "test"):
        table = pq.read_table(sample_dir / f"{split}.parquet")
        if split == "train":
            rows = table.to_pylist()
            rows[17]["image"]["bytes"] = rows[17]["image"]["bytes"][:200]
            path = rows[17]["image"]["path"]
            table = pa.Table.from_pylist(rows, schema=table.schema)
        pq.write_table(table, root / f"{split}.parquet")
    status, error, _ = run(root)
    assert status == 1
    assert f"train/17 ({path}): the JPEG data is damaged" in error


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("hf://", "no dataset name"), ("hf:///nowhere/at/all", "no such folder"), ("gs://", "must be gs://BUCKET/PATH")],
)
def test_addresses_that_name_nothing(run: Run, uri: str, expected: str) -> None:
    status, error, _ = run(uri)
    assert status == 1
    assert expected in error


def test_unreachable_hub_is_one_clear_line(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from components.verify_data.importing import download\n"
        "from serving.platform.errors import StageError\n"
        "try: download('cifake', Path(sys.argv[1]))\n"
        "except StageError as error: print(error)\n"
    )
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[3],
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hf://dragonintelligence/CIFAKE-image-dataset: cannot be opened (")
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_import_never_overwrites_and_download_knows_its_names(tmp_path: Path, sample_dir: Path) -> None:
    from serving.platform.errors import StageError

    folder = write_folder(tmp_path / "data", sample_dir)
    import_dataset(str(folder), tmp_path / "out", VerifyDataConfig())
    with pytest.raises(StageError, match="already holds a dataset"):
        import_dataset(str(folder), tmp_path / "out", VerifyDataConfig())
    with pytest.raises(StageError, match="unknown dataset 'cifar'; known: cifake"):
        download("cifar", tmp_path / "other")


def test_unknown_knob_and_wrong_type_are_refused(run: Run, folder: Path) -> None:
    assert "max_corupt_share" in run(folder, '{"max_corupt_share": 0.1}')[1]
    assert "val_fraction" in run(folder, '{"val_fraction": "much"}')[1]
