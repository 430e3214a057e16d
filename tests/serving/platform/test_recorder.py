"""The recorder: a busy, full or damaged file delays what is written and loses nothing within its memory."""

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.platform.errors import StateError
from serving.platform.recorder import Recorder, Trouble

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"


def write(cursor: sqlite3.Cursor, rows: Sequence[int]) -> None:
    cursor.executemany("INSERT INTO t VALUES (?)", [(row,) for row in rows])


def numbers(path: Path) -> list[int]:
    with sqlite3.connect(path) as file:
        return [n for (n,) in file.execute("SELECT n FROM t ORDER BY n")]


@pytest.fixture
def told() -> list[tuple[Trouble, int]]:
    return []


@pytest.fixture
def recorder(tmp_path: Path, told: list[tuple[Trouble, int]], monkeypatch: pytest.MonkeyPatch) -> Recorder[int]:
    monkeypatch.setattr("serving.platform.recorder.BUSY_TIMEOUT_S", 0.1)
    return Recorder(tmp_path / "x.sqlite", SCHEMA, write, 5, "X_PATH", lambda kind, n: told.append((kind, n)))


def test_what_a_locked_file_did_not_take_comes_later_in_its_order(
    recorder: Recorder[int], tmp_path: Path, told: list[tuple[Trouble, int]]
) -> None:
    other = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for n in range(3):
        recorder.put(n)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        recorder.flush()
    with recorder.trouble_told():
        recorder.flush()
    assert told == [("unwritten", 3)]
    recorder.put(3)
    other.execute("ROLLBACK")
    recorder.flush()
    assert numbers(tmp_path / "x.sqlite") == [0, 1, 2, 3]
    recorder.close()


def test_memory_is_bounded_and_what_goes_is_counted(
    recorder: Recorder[int], tmp_path: Path, told: list[tuple[Trouble, int]]
) -> None:
    for n in range(8):
        recorder.put(n)
    assert told == [("dropped", 1)] * 3
    recorder.close()
    assert numbers(tmp_path / "x.sqlite") == [3, 4, 5, 6, 7]


def test_rows_that_came_while_a_write_failed_do_not_push_memory_over_its_bound(
    tmp_path: Path, told: list[tuple[Trouble, int]]
) -> None:
    def failing(_cursor: sqlite3.Cursor, _rows: Sequence[int]) -> None:
        for n in range(10, 13):
            full.put(n)
        raise sqlite3.OperationalError("disk is full")

    full: Recorder[int] = Recorder(
        tmp_path / "x.sqlite", SCHEMA, failing, 5, "X_PATH", lambda kind, n: told.append((kind, n))
    )
    for n in range(5):
        full.put(n)
    with pytest.raises(sqlite3.OperationalError):
        full.flush()
    assert told == [("dropped", 3)]
    full._write = write
    full.close()
    assert numbers(tmp_path / "x.sqlite") == [3, 4, 10, 11, 12]


def test_a_file_damaged_while_it_is_used_is_moved_aside_and_nothing_in_memory_is_lost(
    recorder: Recorder[int], tmp_path: Path, told: list[tuple[Trouble, int]]
) -> None:
    path = tmp_path / "x.sqlite"
    recorder.put(1)
    recorder.flush()
    other = sqlite3.connect(path, isolation_level=None)  # what another wrote is read from the file again
    other.execute("INSERT INTO t VALUES (100)")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)
    recorder.put(2)
    for _ in range(3):
        with recorder.trouble_told():
            recorder.read("SELECT * FROM t")
            recorder.flush()
    recorder.close()
    assert numbers(path) == [2]
    assert ("damaged", 0) in told
    assert len(list(tmp_path.glob("x.sqlite.damaged-*"))) == 1


def test_a_second_process_takes_the_new_file_that_the_first_made(recorder: Recorder[int], tmp_path: Path) -> None:
    second: Recorder[int] = Recorder(tmp_path / "x.sqlite", SCHEMA, write, 5, "X_PATH")
    for each in (recorder, second):
        with each.trouble_told():
            raise sqlite3.DatabaseError("database disk image is malformed")
    assert list(tmp_path.glob("*.damaged-*")) == []
    recorder.put(1)
    second.put(2)
    recorder.close()
    second.close()
    assert numbers(tmp_path / "x.sqlite") == [1, 2]


def test_a_place_that_cannot_be_written_is_named_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"X_PATH=.*writable folder"):
        Recorder(tmp_path / "file" / "x.sqlite", SCHEMA, write, 5, "X_PATH")


FILLING = """
import resource, sys
from pathlib import Path
from serving.platform.recorder import Recorder
def write(cursor, rows):
    cursor.executemany("INSERT INTO t VALUES (?, ?)", [(row, "x" * 2000) for row in rows])
schema = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, fill TEXT)"
recorder = Recorder(Path(sys.argv[1]), schema, write, 500, "X")
# a limit on the size of files stands for the full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
failed = 0
for n in range(200):
    recorder.put(n)
    try:
        recorder.flush()
    except Exception:
        failed += 1
assert failed > 10, failed
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.flush()
recorder.close()
"""


def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    subprocess.run([sys.executable, "-c", FILLING, str(path)], check=True, timeout=60)
    assert numbers(path) == list(range(200))
