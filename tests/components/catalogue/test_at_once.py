"""Two jobs that write to one place in a bucket at once: nothing keeps the second out, and the first must not suffer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.catalogue import stage
from components.catalogue.entries import Entry
from serving.platform.errors import AidetectError
from tests.components.catalogue.jobs import score
from tests.fakes.gcs import FakeGcs

Meanwhile = Callable[[], object]


@pytest.fixture
def shelves(photos: Path, bucket: FakeGcs) -> FakeGcs:
    for path in sorted((photos / "a").glob("[0-9]*.*"))[:9]:
        bucket.put(f"gs://shop/a/{path.name}", path.read_bytes())
        bucket.put(f"gs://shop/b/other-{path.name}", path.read_bytes())
    return bucket


def rows(bucket: FakeGcs) -> list[object]:
    parts = sorted(name for name in bucket.objects if name.startswith("shop/out/parts/"))
    return [row["id"] for name in parts for row in pq.read_table(pa.BufferReader(bucket.objects[name])).to_pylist()]


def while_listing(monkeypatch: pytest.MonkeyPatch, meanwhile: Meanwhile) -> None:
    """Have something happen once, when the next job has found no plan and begins to list its photos."""
    listed = stage.open_entries

    def slow(*words: Any) -> Iterator[Entry]:
        monkeypatch.setattr(stage, "open_entries", listed)
        meanwhile()
        yield from listed(*words)

    monkeypatch.setattr(stage, "open_entries", slow)


def test_two_jobs_of_one_command_end_with_the_same_whole_result(
    shelves: FakeGcs, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summaries, listed = [], [name.rpartition("/")[2] for name in sorted(shelves.objects) if "shop/a/" in name]

    def other() -> None:
        summaries.append(score("gs://shop/a", "gs://shop/out", toy_bundle))
        # what came after the first listing is none of the job's, whoever has seen it
        shelves.put("gs://shop/a/000-later.jpg", b"")

    while_listing(monkeypatch, other)
    summaries.append(score("gs://shop/a", "gs://shop/out", toy_bundle))
    assert summaries[0] == summaries[1]
    assert rows(shelves) == listed
    assert all(shelves.generations[name] == 1 for name in shelves.objects if "/summary" not in name)


def test_a_job_of_other_photos_is_refused_and_leaves_the_first_as_it_was(
    shelves: FakeGcs, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_listing(monkeypatch, lambda: score("gs://shop/a", "gs://shop/out", toy_bundle))
    with pytest.raises(AidetectError, match=r"gs://shop/out: holds the results of another job \(gs://shop/a, .*name"):
        score("gs://shop/b", "gs://shop/out", toy_bundle)
    before = rows(shelves)
    # the plan is the first's still: what is lost is scored again as it was
    del shelves.objects["shop/out/parts/part-000000.parquet"]
    score("gs://shop/a", "gs://shop/out", toy_bundle)
    assert rows(shelves) == before


def test_two_jobs_that_score_at_once_commit_each_shard_once(
    shelves: FakeGcs, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = score("gs://shop/a", "gs://shop/out", toy_bundle)
    for name in [name for name in shelves.objects if "/parts/" in name or "/summary" in name]:
        # as killed between its plan and its first part
        del shelves.objects[name], shelves.generations[name]
    names = type(stage.open_destination("gs://shop/out")).names

    def other(self: Any, folder: str) -> set[str]:
        found = names(self, folder)
        monkeypatch.setattr(type(self), "names", names)
        score("gs://shop/a", "gs://shop/out", toy_bundle)
        return found

    monkeypatch.setattr(type(stage.open_destination("gs://shop/out")), "names", other)
    again = score("gs://shop/a", "gs://shop/out", toy_bundle)
    assert (again.photos, again.decisions, again.refusals) == (first.photos, first.decisions, first.refusals)
    assert len(rows(shelves)) == len(set(rows(shelves))) == 9
    parts = {name: generation for name, generation in shelves.generations.items() if "/parts/" in name}
    assert set(parts.values()) == {1}
    # and as killed between its last part and its summary
    for name in ("shop/out/summary.json", "shop/out/summary.html"):
        del shelves.objects[name]
    assert score("gs://shop/a", "gs://shop/out", toy_bundle) == again
    assert {name: shelves.generations[name] for name in parts} == parts


def test_a_job_whose_answer_was_lost_is_its_own(
    shelves: FakeGcs, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = type(stage.open_destination("gs://shop/out")).commit

    def lost(self: Any, name: str, content: bytes, replace: bool = False) -> bool:
        done = commit(self, name, content, replace)
        # the client has sent it again, and the second was told that it is there
        return False if name == "job.json" else done

    monkeypatch.setattr(type(stage.open_destination("gs://shop/out")), "commit", lost)
    assert score("gs://shop/a", "gs://shop/out", toy_bundle).photos == 9
