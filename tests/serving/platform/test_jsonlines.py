"""JSON lines: whole or not at all, whatever happened to the end of the file or the disk."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from components.platform.cloud_storage import CloudLines, open_lines
from serving.platform.errors import StageError, StateError
from serving.platform.jsonlines import MAX_LINE_BYTES, LocalLines, documents
from tests.fakes.gcs import FakeGcs


class Note(BaseModel):
    n: int


def line(n: int) -> bytes:
    return json.dumps({"n": n}).encode()


def numbers(lines: LocalLines | CloudLines) -> list[int]:
    return [note.n for note in documents(lines.read(), Note, lines.where)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.integers(1, 5),
    after=st.integers(1, 3),
    torn=st.binary(max_size=300).filter(lambda b: b"\n" not in b) | st.integers(1, 7).map(lambda n: line(99)[:n]),
)
def test_whatever_a_dead_writer_left_costs_no_whole_line(tmp_path: Path, before: int, after: int, torn: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    lines = LocalLines(path, "set X")
    for n in range(before):
        lines.append(line(n))
    with path.open("ab") as file:
        file.write(torn)
    assert numbers(lines) == list(range(before))
    for n in range(before, before + after):
        lines.append(line(n))
    assert path.read_bytes() == b"".join(line(n) + b"\n" for n in range(before + after))


def test_damage_in_the_middle_costs_that_line(tmp_path: Path) -> None:
    lines = LocalLines(tmp_path / "x.jsonl", "set X")
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([line(1), line(7)[:4] + line(2), b"\0\xff", b"", line(3)]) + b"\n")
    assert numbers(lines) == [1, 3]


def test_a_last_line_that_only_lacks_its_newline_stays(tmp_path: Path) -> None:
    lines = LocalLines(tmp_path / "x.jsonl", "set X")
    (tmp_path / "x.jsonl").write_bytes(line(1))
    assert numbers(lines) == [1]
    lines.append(line(2))
    assert (tmp_path / "x.jsonl").read_bytes() == line(1) + b"\n" + line(2) + b"\n"


def test_a_torn_end_longer_than_any_line_goes_as_a_whole(tmp_path: Path) -> None:
    lines = LocalLines(tmp_path / "x.jsonl", "set X")
    lines.append(line(1))
    with (tmp_path / "x.jsonl").open("ab") as file:
        file.write(b"x" * (3 * MAX_LINE_BYTES))
    assert numbers(lines) == [1]
    lines.append(line(2))
    assert (tmp_path / "x.jsonl").read_bytes() == line(1) + b"\n" + line(2) + b"\n"


def test_too_long_a_line_is_neither_written_nor_read_whole(tmp_path: Path) -> None:
    lines = LocalLines(tmp_path / "x.jsonl", "set X")
    with pytest.raises(StateError, match="make a line"):
        lines.append(b"{" + b" " * MAX_LINE_BYTES + b"}")
    (tmp_path / "x.jsonl").write_bytes(b"x" * (2 * MAX_LINE_BYTES) + b"\n" + line(1) + b"\n")
    assert numbers(lines) == [1]


def test_many_writers_and_readers_lose_and_tear_nothing(tmp_path: Path) -> None:
    lines = LocalLines(tmp_path / "x.jsonl", "set X")
    writers = [threading.Thread(target=lines.append, args=(line(n),)) for n in range(32)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = numbers(lines)
        assert len(set(found)) == len(found)
    assert sorted(numbers(lines)) == list(range(32))


FILLING = """
import resource, sys
from pathlib import Path
from serving.platform.errors import StateError
from serving.platform.jsonlines import LocalLines
# a limit on the size of files stands for the full disk: a write comes out short, later ones fail
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
lines = LocalLines(Path(sys.argv[1]), "set X")
for n in range(40):
    try:
        lines.append(b'{"n": %d}' % n)
        print(n)
    except StateError as error:
        assert "nothing was recorded" in str(error), error
"""


def test_a_disk_that_fills_up_keeps_what_was_acknowledged_and_goes_on_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    command = [sys.executable, "-c", FILLING, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    acknowledged = [int(n) for n in run.stdout.split()]
    assert 0 < len(acknowledged) < 40
    lines = LocalLines(path, "set X")
    assert numbers(lines) == acknowledged
    lines.append(line(100))
    assert numbers(lines) == [*acknowledged, 100]


def test_a_file_of_something_else_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("a,b\n1,2\n")
    with pytest.raises(StateError, match="none of the 2 lines is a Note; repair or move"):
        numbers(LocalLines(tmp_path / "x.jsonl", "set X"))


def test_a_lock_that_is_held_is_waited_for_and_then_told(tmp_path: Path) -> None:
    lines, other = (LocalLines(tmp_path / "x.jsonl", "set X") for _ in range(2))
    told = pytest.raises(StateError, match=r"busy .*wait for it to end")
    with lines.exclusive(0, "busy"), told, other.exclusive(0.2, "busy"):
        raise AssertionError("two hold one lock")
    with other.exclusive(0, "busy"):
        other.append(line(1))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    gcs = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    yield gcs
    gcs.close()


def test_an_object_with_a_torn_end_is_mended_too(bucket: FakeGcs) -> None:
    bucket.put("gs://ops/x.jsonl", line(1) + b"\n" + line(2)[:4])
    lines = open_lines("gs://ops/x.jsonl", "set X")
    assert numbers(lines) == [1]
    lines.append(line(3))
    assert bucket.objects["ops/x.jsonl"] == line(1) + b"\n" + line(3) + b"\n"


def test_of_two_that_read_the_same_one_claims(bucket: FakeGcs) -> None:
    first, second = (open_lines("gs://ops/x.jsonl", "set X") for _ in range(2))
    assert (numbers(first), numbers(second)) == ([], [])
    assert first.claim(line(1))
    assert not second.claim(line(2))
    assert numbers(second) == [1]
    assert second.claim(line(2))
    assert numbers(first) == [1, 2]


def test_an_object_larger_than_any_record_is_refused_before_it_is_read(
    bucket: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.platform.cloud_storage._LINES_BYTES", 20)
    bucket.put("gs://ops/x.jsonl", b"x" * 21)
    with pytest.raises(StageError, match="21 bytes; a record has at most 20"):
        numbers(open_lines("gs://ops/x.jsonl", "set X"))
