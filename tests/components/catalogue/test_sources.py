"""Where photos come from: Parquet, feeds of paths and addresses, buckets; each has its row or is one line."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.catalogue.cloud import CloudDestination
from components.catalogue.config import CatalogueConfig
from components.catalogue.destination import LocalDestination
from components.catalogue.entries import entries_of
from components.catalogue.stage import open_entries
from serving.platform.errors import AidetectError
from tests.components.catalogue.jobs import command, picture, rows_of, score
from tests.e2e.conftest import ROOT
from tests.fakes.gcs import FakeGcs
from tests.serving.fetch.shop import Answer, ok, raw, redirect, shop, status


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
    "feed.xml": (
        '<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel>'
        "<title>Shop</title><image_link>no</image_link>"
        "<item><g:id>a</g:id><g:image_link>{0}</g:image_link><g:shipping><g:id>no</g:id></g:shipping></item>"
        "<item><g:image_link><![CDATA[ {1} ]]></g:image_link><g:additional_image_link>{0}</g:additional_image_link>"
        "<g:additional_image_link>{1}</g:additional_image_link><g:id>b</g:id></item></channel></rss>"
    ),
    "feed.atom": (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><id>tag:shop</id>'
        "<entry><id>tag:1</id><g:id>a</g:id><g:image_link>{0}</g:image_link></entry>"
        "<entry><g:id>b</g:id><id>tag:2</id><g:image_link>{1}</g:image_link></entry></feed>"
    ),
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
    if name in ("feed.tsv", "feed.xml"):
        assert [row["id"] for row in rows][2:] == ["b#additional_image_link/1", "b#additional_image_link/2"]


def test_results_of_an_earlier_job_are_no_photos_on_a_disk_or_in_a_bucket(tmp_path: Path, bucket: FakeGcs) -> None:
    results = ("job.json", "parts/part-000000.parquet", "plan/00000.parquet", "summary.html", "a.jpg", "z/b.jpg")
    earlier = [f"{folder}/{name}" for folder in ("results", "b/last/week") for name in results]
    # a photo's folder is told from a job's by all of it
    photos = ["a.jpg", "b/last/x.jpg", "parts/b.jpg", "shop/job.json", "shop/x.jpg"]
    for name in [*earlier, *photos, "job.json"]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
        bucket.put(f"gs://shop/in/{name}", b"x")
    for source in (str(tmp_path / "in"), "gs://shop/in"):
        assert {entry.id for entry in open_entries(source, CatalogueConfig())} == {*photos, "job.json"}
    # such a folder that is named is read: it is asked for
    assert len(list(open_entries("gs://shop/in/*/*.html", CatalogueConfig()))) == 2
    # a job's own, of which only the plan stands yet
    (tmp_path / "in/later/plan").mkdir(parents=True)
    (tmp_path / "in/later/plan/00000.parquet").write_bytes(b"x")
    found = open_entries(str(tmp_path / "in"), CatalogueConfig(), LocalDestination(tmp_path / "in/parts/../later"))
    assert {entry.id for entry in found} == {*photos, "job.json"}
    bucket.put("gs://shop/in/later/plan/00000.parquet", b"x")
    found = open_entries("gs://shop/in", CatalogueConfig(), CloudDestination("gs://shop/in/later/"))
    assert {entry.id for entry in found} == {*photos, "job.json"}


def test_a_pattern_names_each_file_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.jpg", "b/c/1.jpg", "a/9.jpg", "a/.hidden.jpg", "a/x.png", "top.jpg", "b/table.parquet"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    for loop in ("a/loop", "b/loop"):
        (tmp_path / "in" / loop).symlink_to(tmp_path / "in")
    pq.write_table(pa.table({"url": ["q.jpg"]}), tmp_path / "in/b/table.parquet")
    monkeypatch.chdir(tmp_path)

    def names(pattern: str) -> list[str]:
        return [entry.uri for entry in entries_of(pattern, CatalogueConfig())]

    assert names("in/**/*.jpg") == ["in/a/9.jpg", "in/b/2.jpg", "in/b/c/1.jpg", "in/top.jpg"]
    assert names("in/*/[0-9].jpg") == ["in/a/9.jpg", "in/b/2.jpg"]
    assert names(f"{tmp_path}/in/*.jpg") == [f"{tmp_path}/in/top.jpg"]
    assert names("in") == ["a/9.jpg", "a/x.png", "b/2.jpg", "b/c/1.jpg", "q.jpg", "top.jpg"]
    for nothing in ("in/*.gif", "in/*/c", "nowhere/*.jpg"):
        with pytest.raises(AidetectError, match="no file matches"):
            names(nothing)


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
    bucket.put("gs://shop/feed/feed.csv", f"id,path\nz,{files[0].name}\n".encode())
    with pytest.raises(AidetectError, match=r"feed\.csv: has changed since 2"):
        score("gs://shop/feed/feed.csv", "gs://shop/out3", toy_bundle)
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
    with pytest.raises(AidetectError, match=r"results would lie among the photos; .* -o gs://shop/in/results"):
        score("gs://shop/in/", "gs://shop/in", toy_bundle)


def test_the_processes_of_a_job_leave_nothing_behind(
    photos: Path, toy_bundle: Path, tmp_path: Path, bucket: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers end without goodbye: what they fetched must not stay on the disk, table after table."""
    table = pa.table({"image": [{"bytes": (photos / "a/03.jpg").read_bytes(), "path": "03.jpg"}] * 6})
    pq.write_table(table, tmp_path / "t.parquet")
    for name in ("first", "second"):
        bucket.put(f"gs://shop/tables/{name}.parquet", (tmp_path / "t.parquet").read_bytes())
    # not below pytest's folder: the workers' sockets lie there, whose paths are short
    with tempfile.TemporaryDirectory(prefix="jobs-") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        words = command("gs://shop/tables", tmp_path / "out", toy_bundle)
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert [row["refused_reason"] for row in rows_of(tmp_path / "out")] == [None] * 12
        left = [path.name for path in Path(temporary).iterdir()]
    assert [name for name in left if not name.startswith("aidetect-matplotlib")] == []
