"""Each defect that ruins a detector, planted in a copy of the sample, is named and stops the run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.artifacts.dataset import DATASET_JSON, Dataset
from components.verify_data.config import VerifyDataConfig
from components.verify_data.stage import verify_and_pack
from serving.platform.errors import StageError
from tests.components.verify_data.conftest import reencode
from tests.signed import NEWSCODES
from tests.statements import source_type, with_xmp

Run = Callable[..., tuple[int, str, Path]]


def _refused(run: Run, folder: Path, *parts: str) -> Path:
    status, error, out = run(folder)
    assert status == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1, "one line"
    for part in parts:
        assert part in error
    assert not (out / DATASET_JSON).exists()
    assert not (out / "train.parquet").exists()
    assert not (out / ".spool").exists()
    report = (out / "report.html").read_text()
    assert "REFUSED" in report
    for part in parts:
        assert part.split(":")[0] in report
    return out


def test_a_clean_folder_passes(run: Run, folder: Path) -> None:
    status, _, out = run(folder)
    assert status == 0
    summary = Dataset(out).summary
    assert {name: split.rows for name, split in summary.splits.items()} == {"train": 120, "val": 24, "test": 100}
    assert summary.quarantined == 0
    assert "PASSED" in (out / "report.html").read_text()


def test_exact_duplicate_across_train_and_test(run: Run, folder: Path) -> None:
    data = (folder / "test/real/007.jpg").read_bytes()
    (folder / "train/real/copied.jpg").write_bytes(data)
    out = _refused(run, folder, "exact duplicates across splits", "train/real/copied.jpg", "test/real/007.jpg")
    quarantined = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert [row["image"]["path"] for row in quarantined] == ["train/real/copied.jpg"]
    assert quarantined[0]["image"]["bytes"] == data, "nothing is lost"
    assert quarantined[0]["kind"] == "exact_duplicate"
    assert (out / "report.html").read_text().count('alt="the other one"') == 1, "both pictures side by side"


@pytest.mark.parametrize(("mirror", "word"), [(False, "re-encoded"), (True, "mirror image")])
@pytest.mark.parametrize("name", ["000.jpg", "021.jpg", "042.jpg"])
def test_near_duplicate_across_train_and_test(run: Run, folder: Path, mirror: bool, word: str, name: str) -> None:
    data = (folder / "test/ai_generated" / name).read_bytes()
    (folder / "train/ai_generated/stolen.jpg").write_bytes(reencode(data, 75, mirror))
    _refused(run, folder, "1 near duplicates", "train/ai_generated/stolen.jpg", word, f"test/ai_generated/{name}")


def test_a_damaged_file_does_not_change_what_is_said_of_the_others(run: Run, folder: Path) -> None:
    for i in range(40):
        data = (folder / f"test/real/{i:03}.jpg").read_bytes()
        (folder / f"train/real/stolen{i}.jpg").write_bytes(reencode(data, 40))
    tolerant = json.dumps({"max_corrupt_share": 0.1, "max_near_duplicate_share": 1, "on_shortcut": "report"})

    def details() -> dict[str, str]:
        _, _, out = run(folder, tolerant)
        rows = pq.read_table(out / "quarantine.parquet").to_pylist()
        return {row["image"]["path"]: row["detail"] for row in rows if row["kind"] == "near_duplicate"}

    whole = details()
    assert len(whole) > 20
    (folder / "val/real/empty.jpg").write_bytes(b"")
    assert details() == whole


def test_truncated_file(run: Run, folder: Path) -> None:
    path = folder / "val/real/003.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    _refused(run, folder, "do not decode", "val/real/003.jpg: the JPEG data is damaged")


def test_zero_byte_file_and_a_file_that_is_no_image(run: Run, folder: Path) -> None:
    (folder / "test/real/empty.jpg").write_bytes(b"")
    (folder / "train/real/page.png").write_bytes(b"<html>not found</html>")
    (folder / "train/real/old.gif").write_bytes(b"GIF89a" + bytes(40))
    _refused(run, folder, "3 images", "test/real/empty.jpg: the file is empty", "train/real/page.png", "old.gif")


def test_one_image_under_both_labels(run: Run, folder: Path) -> None:
    (folder / "train/ai_generated/twin.jpg").write_bytes((folder / "train/real/010.jpg").read_bytes())
    _refused(run, folder, "both labels", "train/ai_generated/twin.jpg", "train/real/010.jpg")


def test_one_class_saved_as_png(run: Run, folder: Path) -> None:
    for path in sorted(folder.glob("*/ai_generated/*.jpg")):
        path.with_suffix(".png").write_bytes(reencode(path.read_bytes(), fmt="PNG"))
        path.unlink()
    _refused(run, folder, "format traces alone tell the classes apart", "format 1.000")


def test_one_class_saved_at_another_quality(run: Run, folder: Path) -> None:
    for path in sorted(folder.glob("*/real/*.jpg")):
        path.write_bytes(reencode(path.read_bytes(), 60))
    _refused(run, folder, "luminance quantisation 1.000")


def test_the_sample_has_no_shortcut(shipped_dir: Path) -> None:
    from components.verify_data.config import VerifyDataConfig
    from components.verify_data.stage import verify

    findings, summary = verify(str(shipped_dir), VerifyDataConfig())
    assert findings.problems == []
    assert findings.offenders == []
    assert findings.shortcut_auc < 0.6
    assert {name: split.rows for name, split in summary.splits.items()} == {
        "train": 1500,
        "val": 312,
        "test": 1020,
        "unseen_generator": 150,
    }


def test_within_tolerance_offenders_are_quarantined_and_test_stays_whole(run: Run, folder: Path) -> None:
    test_image = (folder / "test/real/001.jpg").read_bytes()
    (folder / "train/real/leak.jpg").write_bytes(test_image)
    (folder / "val/real/near.jpg").write_bytes(reencode((folder / "test/real/002.jpg").read_bytes(), 70))
    (folder / "train/real/broken.jpg").write_bytes(test_image[:100])
    (folder / "train/ai_generated/twin.jpg").write_bytes((folder / "train/real/010.jpg").read_bytes())
    tolerant = dict.fromkeys(
        ("max_corrupt_share", "max_exact_duplicate_share", "max_near_duplicate_share", "max_label_conflict_share"), 0.05
    )
    status, error, out = run(folder, json.dumps(tolerant))
    assert (status, error) == (0, "")
    dataset = Dataset(out)
    assert {name: split.rows for name, split in dataset.summary.splits.items()} == {
        "train": 119,
        "val": 24,
        "test": 100,
    }
    quarantined = {row["image"]["path"]: row["kind"] for row in pq.read_table(out / "quarantine.parquet").to_pylist()}
    assert quarantined == {
        "train/real/leak.jpg": "exact_duplicate",
        "val/real/near.jpg": "near_duplicate",
        "train/real/broken.jpg": "corrupt",
        "train/ai_generated/twin.jpg": "label_conflict",
        "train/real/010.jpg": "label_conflict",
    }
    assert dataset.summary.quarantined == 5
    kept = [row["image"]["path"] for split in ("train", "val", "test") for row in dataset.table(split).to_pylist()]
    assert not set(kept) & set(quarantined)


def test_packed_bytes_and_labels_are_those_of_the_files(run: Run, folder: Path) -> None:
    _, _, out = run(folder)
    dataset = Dataset(out)
    for split in ("train", "val", "test"):
        for row in dataset.table(split).to_pylist():
            path = row["image"]["path"]
            assert row["image"]["bytes"] == (folder / path).read_bytes()
            assert row["label"] == int("/ai_generated/" in path)
            assert (row["width"], row["height"]) == (64, 64)


def test_a_failed_run_removes_the_earlier_dataset(folder: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "report.html"
    verify_and_pack(str(folder), VerifyDataConfig(), out, report)
    assert (out / DATASET_JSON).exists()
    (folder / "train/real/empty.jpg").write_bytes(b"")
    with pytest.raises(StageError, match=r"empty\.jpg"):
        verify_and_pack(str(folder), VerifyDataConfig(), out, report)
    assert not (out / DATASET_JSON).exists()
    assert not (out / "train.parquet").exists()


def test_imbalance_is_reported_or_stops_the_run(run: Run, folder: Path) -> None:
    config = {"min_rows": 5, "max_imbalance": 5.0}
    for path in sorted((folder / "train/real").iterdir())[6:]:
        path.unlink()
    status, _, out = run(folder, json.dumps(config))
    assert status == 0
    assert "10.0 images of one class" in (out / "report.html").read_text()
    status, error, _ = run(folder, json.dumps({**config, "on_imbalance": "fail"}))
    assert status == 1
    assert "train: 10.0 images of one class" in error


def test_shuffled_formats_are_no_shortcut(run: Run, folder: Path) -> None:
    generator = np.random.default_rng(0)
    for path in sorted(folder.glob("*/*/*.jpg")):
        if generator.random() < 0.5:
            path.with_suffix(".png").write_bytes(reencode(path.read_bytes(), fmt="PNG"))
            path.unlink()
    status, error, _ = run(folder)
    assert (status, error) == (0, "")


def test_a_real_photo_that_declares_itself_generated_is_an_offender(folder: Path, run: Run) -> None:
    real, generated = folder / "train/real/000.jpg", folder / "train/ai_generated/000.jpg"
    for path in (real, generated):
        data = path.read_bytes()
        xmp = with_xmp("JPEG", source_type(NEWSCODES + "trainedAlgorithmicMedia"))
        at = xmp.index(b"\xff\xe1")
        length = int.from_bytes(xmp[at + 2 : at + 4], "big") + 2
        path.write_bytes(data[:2] + xmp[at : at + length] + data[2:])
    code, error, _ = run(folder)
    assert code == 1
    assert "1 images labelled real that declare themselves generated (max_declared_generated_share allows 0)" in error
    assert "train/real/000.jpg" in error and "ai_generated/000" not in error
    code, error, dataset = run(folder, '{"max_declared_generated_share": 0.01}')
    assert code == 0, error
    quarantined = pq.read_table(dataset / "quarantine.parquet").to_pylist()
    assert [row["kind"] for row in quarantined] == ["declared_generated"]
