"""Feeds of text and XML: what cannot be read is one line, what a row does not say is a row with its reason."""

import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.catalogue.config import CatalogueConfig
from components.catalogue.entries import entries_of
from serving.platform.errors import AidetectError
from tests.components.catalogue.jobs import score


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sku,picture\n1,a.jpg\n", "--column; it has: sku, picture"),
        (b"\xff\xfei\x00d\x00", "UTF-8"),
        (b"", "--column"),
        (b"image_url\n" + b"x" * 2_000_000, "longer than"),
        (b"image_url\n", "no photos"),
        (b",".join(b"c%d" % n for n in range(3000)), "more than 2,000 columns"),
        # a row of lines that quotes hold together
        (b"image_url,x\n" + b'a,"b\n' + b'c","d\n' * 300_000, "longer than"),
        (b'{"path": "a", ' + b", ".join(b'"k%d": 1' % n for n in range(3000)) + b"}", "more than 2,000 members"),
        (b"<rss><channel><item>", "not well-formed"),
        (b"<rss><channel></channel></rss>", "no photos"),
        (b'<!DOCTYPE r [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><rss><item><id>&b;</id></item></rss>', "DOCTYPE"),
        (b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><rss/>', "DOCTYPE"),
        (b"<rss><item><id>&b;</id></item></rss>", "not well-formed"),
        (b"<a>" * 5000, "nested deeper"),
        (b"<rss><!--" + b"x" * 2_000_000, "longer than|not well-formed"),
    ],
)
def test_an_unreadable_feed_is_one_line_and_begins_nothing(
    toy_bundle: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    feed = tmp_path / f"feed.{'xml' if content[:1] == b'<' else 'jsonl' if content[:1] == b'{' else 'csv'}"
    feed.write_bytes(content)
    with pytest.raises(AidetectError, match=message) as error:
        score(feed, tmp_path / "out", toy_bundle)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/job.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        # what follows would be swallowed as a part of the cell, up to the next quote
        (
            "f.tsv",
            b'id\ttitle\turl\n1\t"12 inch\ta.jpg\n2\t"Best" x\tb.jpg\n',
            "line 2: a cell begins with a quote that",
        ),
        ("f.tsv", b'id\ttitle\turl\n1\tx\ta.jpg\n2\t"12 inch\tb.jpg\n', "line 3: a cell begins with a quote that"),
        ("f.csv", b"id,url,url\n1,a.jpg,b.jpg\n", "two columns are named url"),
        ("f.csv.gz", b"\x1f\x8b\x08", "is a gzip archive, neither a photo nor a feed"),
        ("f.parquet", None, "not a readable Parquet file"),
    ],
)
def test_what_would_lose_rows_or_photos_is_no_feed(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is None:  # its end is whole, and what stands before it is not
        pq.write_table(pa.table({"url": [f"{n}.jpg" for n in range(100)]}), tmp_path / name)
        content = (tmp_path / name).read_bytes()
        content = content[:4] + bytes(40) + content[44:]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AidetectError, match=message):
        list(entries_of(str(tmp_path / name), CatalogueConfig()))


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "feed.csv")
    with pytest.raises(AidetectError, match="save it as a file"):
        entries_of(str(tmp_path / "feed.csv"), CatalogueConfig())


def test_an_xml_feed_is_read_as_a_stream_and_its_texts_are_cut(tmp_path: Path) -> None:
    item = b"<item><id>%d</id><image_link>http://x.example/%d.jpg</image_link><description>%s</description></item>"
    with (tmp_path / "feed.xml").open("wb") as feed:
        feed.write(b"<rss><channel>")
        for number in range(20_000):
            feed.write(item % (number, number, b"y" * 500))
        feed.write(b"<item><image_link>" + b"z" * 500_000 + b"</image_link>" * 1 + b"</item></channel></rss>")
    tracemalloc.start()
    found = 0
    for entry in entries_of(str(tmp_path / "feed.xml"), CatalogueConfig()):
        found += 1
        assert len(entry.uri) <= 8192
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 20_001
    assert peak < 4 * 2**20


def test_cells_are_taken_for_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text('ID,Title,Image link\n1,red, shoe,a.jpg\n2,"a\nb","x.jpg,y.jpg"\n3,z,b.jpg,,\n')
    lines = [
        '{"id": "\\ud800", "url": "\\ud800.jpg", "price": NaN}',
        '{"id": 2, "url": NaN}',
        '{"url": "a", "url": "b"}',
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    cells = {"url": [b"a.jpg", b"\xff.jpg", None], "id": pa.array(["x", "y", "z"]).dictionary_encode()}
    pq.write_table(pa.table(cells), tmp_path / "f.parquet")
    found = {
        suffix: [
            (e.id, e.uri, e.place if e.kind == "none" else b"")
            for e in entries_of(str(tmp_path / f"f{suffix}"), CatalogueConfig())
        ]
        for suffix in (".csv", ".jsonl", ".parquet")
    }
    assert found == {
        # one cell too many: it stands for a photo nobody knows
        ".csv": [
            ("1", "", b"row_malformed"),
            ("2", "x.jpg", b""),
            ("2#Image link/2", "y.jpg", b""),
            ("3", "b.jpg", b""),
        ],
        ".jsonl": [("\\ud800", "\\ud800.jpg", b""), ("2", "", b"no_photo"), ("row 3", "", b"row_malformed")],
        ".parquet": [("x", "a.jpg", b""), ("y", "\\xff.jpg", b""), ("z", "", b"no_photo")],
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.csv", "id,image_link,additional_image_link\n1,a.jpg\n2\n\n3,,\n4, ,b.jpg\n5,{many},\n"),
        (
            "f.jsonl",
            '{"id": 1, "image_link": "a.jpg"}\n{"id": 2}\n{"id": 3, "image_link": []}\n'
            '{"id": 4, "additional_image_link": "b.jpg"}\n{"id": 5, "image_link": "{many}"}\n',
        ),
    ],
)
def test_a_row_without_a_photo_is_a_row_and_so_is_what_is_more_than_is_taken(
    tmp_path: Path, name: str, text: str
) -> None:
    many = ",".join(["x.jpg"] * 25)
    (tmp_path / name).write_text(text.replace("{many}", many if name.endswith("jsonl") else f'"{many}"'))
    found = list(entries_of(str(tmp_path / name), CatalogueConfig()))
    assert [(entry.id, entry.place) for entry in found if entry.kind == "none"] == [
        ("2", b"no_photo"),
        ("3", b"no_photo"),
        ("5#image_link/21", b"too_many_links"),
    ]
    assert [entry.id for entry in found if entry.kind == "path"][:3] == ["1", "4#additional_image_link/1", "5"]
    assert len(found) == 2 + 3 + 20
