"""`aidetect score`: every photo of a source has exactly one row, whatever happens to it or to the job."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.catalogue.config import CatalogueConfig
from components.catalogue.destination import LocalDestination
from components.catalogue.job import missing_shards
from components.catalogue.plan import read_job
from components.catalogue.stage import score_catalogue
from serving.detector.detector import Detector
from serving.platform.errors import AidetectError
from tests.components.catalogue.jobs import rows_of, score


def test_a_folder_has_one_row_for_each_file_with_the_verdict_of_the_detector(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    summary = score(photos, tmp_path, toy_bundle)
    rows = rows_of(tmp_path)
    assert len(rows) == len({row["id"] for row in rows}) == 45 == summary.photos
    refused = {row["id"]: row["refused_reason"] for row in rows if row["refused_reason"]}
    assert refused == {
        "a/broken.jpg": "corrupt",
        "a/empty.jpg": "empty",
        "b/notes.txt": "unsupported_type",
        "b/huge.jpg": "too_large",
        "c/\\xff\\xfe.jpg": "empty",
    }
    detector = Detector.load(toy_bundle, threads=1)
    for row in rows:
        if row["refused_reason"] is None:
            verdict = detector.judge((photos / str(row["id"])).read_bytes()).verdict
            assert row["probability"] == pytest.approx(verdict.probability, abs=1e-6)
            assert (row["prediction"], row["confidence"]) == (verdict.prediction, verdict.confidence)
            assert (row["width"], row["height"], row["model_version"]) == (48, 48, "7")
            assert row["model_digest"] == detector.manifest.digest
    assert summary.refusals == {"empty": 2, "corrupt": 1, "unsupported_type": 1, "too_large": 1}
    page = (tmp_path / "summary.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len(summary.most_suspicious) == 24
    assert "unsupported_type" in page


def test_a_second_run_scores_only_a_part_that_was_lost(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    first = score(photos, tmp_path, toy_bundle)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    (tmp_path / "parts/part-000003.parquet").unlink()
    again = score(photos, tmp_path, toy_bundle)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"part-000003.parquet"}
    assert (again.photos, again.decisions) == (first.photos, first.decisions)


def test_a_rerun_reads_no_more_of_the_plan_than_it_lacks(
    photos: Path, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(photos, tmp_path, toy_bundle, shard_photos=3)
    destination, before, read = LocalDestination(tmp_path), rows_of(tmp_path), list[str]()
    job = read_job(destination)
    assert job is not None and job.shards > 10
    monkeypatch.setattr("components.catalogue.plan.Entry", lambda **row: read.append(row["id"]))
    assert list(missing_shards(destination, job, range(job.groups))) == []
    (tmp_path / "parts/part-000004.parquet").unlink()
    assert [shard for shard, _ in missing_shards(destination, job, range(job.groups))] == [4]
    assert read == [row["id"] for row in before[12:15]]


def test_a_plan_is_not_gone_by_when_its_feed_has_changed(toy_bundle: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("path\na.jpg\n")
    planned = score(feed, tmp_path / "out", toy_bundle).planned_at
    feed.touch()
    assert score(feed, tmp_path / "out", toy_bundle).planned_at == planned > "2026"
    job = tmp_path / "out/job.json"
    older = json.loads(job.read_text())
    feed.write_text("path\nb.jpg\n")
    with pytest.raises(AidetectError, match=re.escape(f"has changed since {planned}, when")):
        score(feed, tmp_path / "out", toy_bundle)
    # a job that was begun before its feed was remembered
    del older["content"]
    job.write_text(json.dumps(older))
    assert score(feed, tmp_path / "out", toy_bundle).photos == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard_photos": 9}, "another job"),
        ({"max_file_bytes": 100_000}, "another job"),
    ],
)
def test_a_destination_of_another_job_is_left_alone(
    photos: Path, toy_bundle: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    score(photos / "a", tmp_path, toy_bundle)
    before = rows_of(tmp_path)
    for source, knobs in ((photos / "a", change), (photos / "b", {})):
        with pytest.raises(AidetectError, match=message):
            score(source, tmp_path, toy_bundle, **knobs)
    assert rows_of(tmp_path) == before


def test_a_part_of_another_job_is_not_taken_for_ones_own(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    score(photos / "a", ours, toy_bundle)
    score(photos / "b", theirs, toy_bundle)
    name = "parts/part-000001.parquet"
    shutil.copyfile(theirs / name, ours / name)
    with pytest.raises(AidetectError, match=f"{name}: rows of another job"):
        score(photos / "a", ours, toy_bundle)
    (ours / name).unlink()
    again = score(photos / "a", ours, toy_bundle)
    assert again.photos == len({row["id"] for row in rows_of(ours)})


def test_foreign_files_of_our_names_are_read_to_a_bound(
    photos: Path, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(photos / "a", tmp_path, toy_bundle)
    job, plan = (tmp_path / "job.json").read_bytes(), tmp_path / "plan/00000.parquet"
    with (tmp_path / "job.json").open("ab") as file:
        file.truncate(2**34)  # a sparse file: it takes no room on the disk
    with pytest.raises(AidetectError, match="larger than"):
        score(photos / "a", tmp_path, toy_bundle)
    (tmp_path / "job.json").write_bytes(job)
    (tmp_path / "parts/part-000000.parquet").unlink()
    for table, said in (
        (pa.table({"id": ["x"]}), "not a plan"),
        (pq.read_table(plan).slice(0, 1), None),
    ):
        pq.write_table(table, plan)
        if said:
            with pytest.raises(AidetectError, match=said):
                score(photos / "a", tmp_path, toy_bundle)
    monkeypatch.setattr("components.catalogue.plan._MOST_SHARD", 0)
    with pytest.raises(AidetectError, match="more than 0 photos"):
        score(photos / "a", tmp_path, toy_bundle)


def test_a_folder_of_something_else_is_left_alone(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/theirs.parquet").write_bytes(b"PAR1")
    with pytest.raises(AidetectError, match="no job"):
        score(photos, tmp_path, toy_bundle)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(AidetectError, match=r"job\.json"):
        score(photos, tmp_path, toy_bundle)


def test_a_bundle_that_no_worker_can_load_is_said_and_not_taken_for_poison(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(toy_bundle, tmp_path / "bundle")
    (broken / "model.onnx").write_bytes(b"")
    with pytest.raises(AidetectError, match="no worker"):
        score_catalogue(str(photos), str(tmp_path / "out"), broken, "7", CatalogueConfig(workers=1))
    assert rows_of(tmp_path / "out") == []
