"""Jobs and workers that are killed, and jobs that meet: no row is lost, doubled or unreadable."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from components.catalogue.config import CatalogueConfig
from components.catalogue.entries import entries_of
from components.catalogue.executor import Shard, score_shards
from components.catalogue.scoring import Work
from tests.components.catalogue.jobs import command, rows_of

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
    assert done.returncode == 1 and done.stdout, done.stderr
    summary = json.loads(done.stdout)
    rows = rows_of(tmp_path / "out")
    assert {row["id"]: row["refused_reason"] for row in rows if row["refused_reason"] == "worker_died"} == {
        "05.jpg": "worker_died"
    }
    assert summary["worker_died"] == 1
    assert len(rows) == len({row["id"] for row in rows}) == summary["photos"]


def test_a_shard_that_is_read_while_a_worker_dies_is_scored_too(photos: Path, toy_bundle: Path) -> None:
    entries = [entry for entry in entries_of(str(photos / "c"), CatalogueConfig(), None) if entry.id.endswith(".jpg")]
    here = psutil.Process()
    before = {process.pid for process in here.children(recursive=True)}

    def shards() -> Iterator[Shard]:
        yield 0, entries[:2]
        workers = [p for p in here.children(recursive=True) if p.pid not in before and p.ppid() != here.pid]
        for worker in workers:
            worker.kill()
        psutil.wait_procs(workers, 60)
        time.sleep(1)  # until the pool knows
        yield 1, entries[2:4]
        yield 2, entries[4:6]

    rows = dict(score_shards(Work(toy_bundle, "1", CatalogueConfig(), 2), shards()))
    assert {number: [row["id"] for row in found] for number, found in rows.items()} == {
        number: [entry.id for entry in entries[2 * number : 2 * number + 2]] for number in range(3)
    }
    assert not any(row.get("refused_reason") for found in rows.values() for row in found)


def kill_and_finish(source: Path, bundle: Path, output: Path, kills: int) -> None:
    """Kill the job again and again, wherever it is; then let it end, and look at every row."""
    chance, kept = random.Random(int(time.time())), dict[str, int]()
    for _ in range(kills):
        process = subprocess.Popen(command(source, output, bundle), start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 6.0))
        # only the job itself: its workers must find out by themselves
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        written = {part.name: part.stat().st_mtime_ns for part in (output / "parts").glob("part-*")}
        # what was committed is never scored again: repeated work is what was under way
        assert {name: written[name] for name in kept} == kept
        kept = written
    done = subprocess.run(command(source, output, bundle), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = rows_of(output)
    assert len(rows) == len({row["id"] for row in rows}) == 45
    assert {part.name for part in (output / "parts").glob("part-*")} == {f"part-{n:06d}.parquet" for n in range(23)}


def test_a_job_killed_twice_goes_on_without_losing_or_doubling_a_row(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    kill_and_finish(photos, toy_bundle, tmp_path / "out", 2)


@pytest.mark.system
@pytest.mark.nightly
def test_a_job_killed_twenty_times_goes_on_without_losing_or_doubling_a_row(
    photos: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    kill_and_finish(photos, toy_bundle, tmp_path / "out", 20)


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
