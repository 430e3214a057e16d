"""`aidetect score`: every photo of a source has exactly one row, whatever happens to it or to the job."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.catalogue.config import CatalogueConfig
from components.catalogue.executor import Scored, Shard
from components.catalogue.scoring import Scorer, Work
from components.catalogue.stage import score_catalogue
from components.catalogue.summary import Summary
from serving.detector.detector import Detector
from serving.platform.errors import AidetectError
from tests.fakes.gcs import FakeGcs
from tests.serving.fetch.shop import Answer, ok, raw, redirect, shop, status

Rows = list[dict[str, object]]


def picture(path: Path, seed: int, side: int = 48) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's folder: 40 photos in three folders, and what else lies in such folders."""
    root = tmp_path_factory.mktemp("shop")
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


def test_a_folder_of_something_else_is_left_alone(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/theirs.parquet").write_bytes(b"PAR1")
    with pytest.raises(AidetectError, match="no job"):
        score(photos, tmp_path, toy_bundle)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(AidetectError, match=r"job\.json"):
        score(photos, tmp_path, toy_bundle)


def test_a_parquet_of_images_is_scored_by_row(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    files = sorted((photos / "a").glob("[0-9]*"))
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in files] + [{"bytes": None, "path": None}]
    table = pa.table({"image": cells, "id": [f"sku-{n}" for n in range(len(cells))]})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in/products.parquet", row_group_size=5)
    score(tmp_path / "in", tmp_path / "out", toy_bundle, shard_photos=4)
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [f"sku-{n}" for n in range(len(cells))]
    assert [row["refused_reason"] for row in rows] == [None] * len(files) + ["empty"]
    assert rows[0]["uri"] == "products.parquet#0"


FEEDS = {
    "feed.csv": "sku;id;image_url\n1;a;{0}\n2;b;{1}\n",
    "feed.tsv": "id\timage_link\tadditional_image_link\na\t{0}\t\nb\t{1}\t{0},{1}\n",
    "feed.txt": "id\timage_link\na\t{0}\nb\t{1}\n",
    "feed.jsonl": '{{"id": "a", "path": "{0}"}}\n\n{{"id": "b", "path": "{1}", "more": [1]}}\n',
}


@pytest.mark.parametrize("name", FEEDS)
def test_a_feed_names_photos_by_path(photos: Path, toy_bundle: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(photos / "a", tmp_path / "images")
    feed = tmp_path / name
    feed.write_text(FEEDS[name].format("images/03.jpg", "images/06.png"), encoding="utf-8-sig")
    score(feed, tmp_path / "out", toy_bundle)
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows][:2] == ["a", "b"]
    assert all(row["refused_reason"] is None for row in rows)
    if name == "feed.tsv":
        assert [row["id"] for row in rows][2:] == ["b#additional_image_link/1", "b#additional_image_link/2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sku,picture\n1,a.jpg\n", "--column; it has: sku, picture"),
        (b"\xff\xfei\x00d\x00", "UTF-8"),
        (b"", "--column"),
        (b"image_url\n" + b"x" * 2_000_000, "longer than"),
        (b"image_url\n", "no photos"),
    ],
)
def test_an_unreadable_feed_is_one_line_and_begins_nothing(
    toy_bundle: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "feed.csv").write_bytes(content)
    with pytest.raises(AidetectError, match=message) as error:
        score(tmp_path / "feed.csv", tmp_path / "out", toy_bundle)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/job.json").exists()


def test_a_feed_reads_nothing_outside_its_folder(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    inside = tmp_path / "feed"
    inside.mkdir()
    (inside / "link.jpg").symlink_to(photos / "a/03.jpg")
    (inside / "feed.csv").write_text(f"path\n{photos}/a/03.jpg\n../secret.jpg\nlink.jpg\nmissing.jpg\n\x01\n.\n")
    picture(tmp_path / "secret.jpg", 1)
    score(inside / "feed.csv", tmp_path / "out", toy_bundle)
    reasons = [row["refused_reason"] for row in rows_of(tmp_path / "out")]
    assert reasons == ["path_refused"] * 3 + ["not_found", "not_found", "not_a_file"]
    score(inside / "feed.csv", tmp_path / "all", toy_bundle, paths_root="/")
    assert rows_of(tmp_path / "all")[0]["refused_reason"] is None


def test_a_feed_of_addresses_has_a_row_for_every_way_a_host_can_fail(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    good = (photos / "a/03.jpg").read_bytes()
    pages: dict[str, bytes | Answer] = {
        "/good.jpg": good,
        "/moved.jpg": redirect("/good.jpg"),
        "/page.jpg": b"<html>gone</html>",
        "/cut.jpg": good[:300],
        "/404.jpg": status(404),
        "/503.jpg": status(503, "Retry-After: 9999\r\n"),
        "/loop.jpg": redirect("/loop.jpg"),
        "/inside.jpg": redirect("http://169.254.169.254/"),
        "/short.jpg": raw(ok(good)[:-10]),
        "/large.jpg": b"x" * 300_000,
    }
    expected = {
        "good.jpg": None, "moved.jpg": None, "page.jpg": "unsupported_type", "cut.jpg": "corrupt",
        "404.jpg": "not_found", "503.jpg": "unavailable", "loop.jpg": "too_many_redirects",
        "inside.jpg": "address_refused", "short.jpg": "incomplete", "large.jpg": "too_large",
    }  # fmt: skip
    with shop(pages) as host:
        lines = [f"{path[1:]},{host.url(path)}" for path in pages]
        lines += ["ftp.jpg,ftp://127.0.0.1/a.jpg", "file.jpg,file:///etc/passwd", "private.jpg,http://10.0.0.1/a.jpg"]
        (tmp_path / "feed.csv").write_text("id,url\n" + "\n".join(lines) + "\n")
        score(
            tmp_path / "feed.csv", tmp_path / "out", toy_bundle,
            trusted_hosts=("127.0.0.1",), fetch_attempts=2, fetch_deadline_s=5,
        )  # fmt: skip
    reasons = {row["id"]: row["refused_reason"] for row in rows_of(tmp_path / "out")}
    expected |= {"ftp.jpg": "url_invalid", "file.jpg": "url_invalid", "private.jpg": "address_refused"}
    assert reasons == expected


def command(source: Path, output: Path, bundle: Path, *more: str) -> list[str]:
    knobs = ["--set", "catalogue.shard_photos=2", "--workers", "2"]
    entry = "import sys; from pipelines.cli import main; main()"
    return [sys.executable, "-c", entry, "score", str(source), "-o", str(output), "--model", str(bundle), *knobs, *more]


HOOK = """
import hashlib, os
real = hashlib.sha256
def sha256(data=b"", **named):
    if b"POISON" in bytes(data[:64]):
        os.kill(os.getpid(), 9)
    return real(data, **named)
hashlib.sha256 = sha256
"""


@pytest.mark.system
def test_a_photo_that_kills_its_worker_costs_its_own_row_only(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "c", tmp_path / "in", symlinks=True, ignore=shutil.ignore_patterns("loop"))
    clean = (tmp_path / "in/05.jpg").read_bytes()
    (tmp_path / "in/05.jpg").write_bytes(clean[:2] + b"\xff\xfe\x00\x08POISON" + clean[2:])
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(HOOK)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "hook")}
    done = subprocess.run(
        command(tmp_path / "in", tmp_path / "out", toy_bundle, "--json"),
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    rows = rows_of(tmp_path / "out")
    assert {row["id"]: row["refused_reason"] for row in rows if row["refused_reason"] == "worker_died"} == {
        "05.jpg": "worker_died"
    }
    assert summary["worker_died"] == 1
    assert len(rows) == len({row["id"] for row in rows}) == summary["photos"]


@pytest.mark.system
def test_a_job_killed_at_any_moment_goes_on_without_losing_or_doubling_a_row(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    kills, chance = 3, random.Random(int(time.time()))
    for _ in range(kills):
        process = subprocess.Popen(command(photos, tmp_path / "out", toy_bundle), start_new_session=True)
        time.sleep(chance.uniform(0.5, 3.5))
        # only the job itself: its workers must find out by themselves
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    done = subprocess.run(command(photos, tmp_path / "out", toy_bundle), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len({row["id"] for row in rows}) == 45
    assert not list((tmp_path / "out/parts").glob("*.tmp"))


@pytest.mark.system
def test_two_jobs_at_once_do_not_disturb_each_other(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(command(photos, tmp_path / "out", toy_bundle), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [job.communicate(timeout=120)[1] for job in jobs]
    assert sorted(job.returncode for job in jobs) in ([0, 0], [0, 1])
    assert all(job.returncode == 0 or "another job is scoring" in text for job, text in zip(jobs, told, strict=True))
    assert len(rows_of(tmp_path / "out")) == 45


def test_a_bundle_that_no_worker_can_load_is_said_and_not_taken_for_poison(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(toy_bundle, tmp_path / "bundle")
    (broken / "model.onnx").write_bytes(b"")
    with pytest.raises(AidetectError, match="no worker"):
        score_catalogue(str(photos), str(tmp_path / "out"), broken, "7", CatalogueConfig(workers=1))
    assert rows_of(tmp_path / "out") == []


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    fake = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    yield fake
    fake.close()


def test_a_bucket_is_source_and_destination(photos: Path, toy_bundle: Path, tmp_path: Path, bucket: FakeGcs) -> None:
    files = sorted((photos / "a").glob("[0-9]*.*"))
    for path in files:
        bucket.put(f"gs://shop/in/{path.name}", path.read_bytes())
    bucket.put("gs://shop/in/.hidden", b"")
    bucket.put("gs://shop/in/large.jpg", b"\xff\xd8\xff" + bytes(300_000))
    bucket.put("gs://shop/in/empty.jpg", b"")
    bucket.put("gs://shop/feed/feed.csv", f"id,path\nx,{files[0].name}\ny,../in/{files[0].name}\n".encode())
    bucket.put(f"gs://shop/feed/{files[0].name}", files[0].read_bytes())
    table = pa.table({"image": [{"bytes": path.read_bytes(), "path": path.name} for path in files]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    bucket.put("gs://shop/tables/t.parquet", (tmp_path / "t.parquet").read_bytes())

    def rows(result: str) -> dict[object, object]:
        parts = sorted(name for name in bucket.objects if name.startswith(f"shop/{result}/parts/"))
        found = [row for name in parts for row in pq.read_table(pa.BufferReader(bucket.objects[name])).to_pylist()]
        return {row["id"]: row["refused_reason"] or row["probability"] for row in found}

    summary = score("gs://shop/in", "gs://shop/out", toy_bundle)
    local = score(photos / "a", tmp_path / "out", toy_bundle)
    expected = {row["id"]: row["probability"] for row in rows_of(tmp_path / "out") if not row["refused_reason"]}
    assert rows("out") == expected | {"large.jpg": "too_large", "empty.jpg": "empty"}
    assert summary.decisions == local.decisions
    assert b"summary" not in b"".join(name.encode() for name in bucket.objects if "parts" in name)
    score("gs://shop/in/0*", "gs://shop/out2", toy_bundle)
    assert set(rows("out2")) == {f"in/{path.name}" for path in files if path.name.startswith("0")}
    score("gs://shop/feed/feed.csv", "gs://shop/out3", toy_bundle)
    assert rows("out3") == {"x": expected[files[0].name], "y": "path_refused"}
    score("gs://shop/tables", "gs://shop/out4", toy_bundle)
    assert list(rows("out4").values()) == [expected[path.name] for path in files]
    # what is committed is not written again, and a lost part is
    before = dict(bucket.generations)
    del bucket.objects["shop/out/parts/part-000001.parquet"]
    score("gs://shop/in", "gs://shop/out", toy_bundle)
    changed = {name for name, generation in bucket.generations.items() if before.get(name) != generation}
    assert {name for name in changed if "/parts/" in name or "/plan/" in name} == {"shop/out/parts/part-000001.parquet"}
    with pytest.raises(AidetectError, match="no photos"):
        score("gs://shop/none", "gs://shop/out5", toy_bundle)
