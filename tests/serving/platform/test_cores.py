"""Usable cores: the affinity mask and every quota around this process, on any kind of machine."""

import os
from pathlib import Path

import pytest

from serving.platform.cores import usable_cores
from serving.settings import Settings


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)


def place(tmp_path: Path, files: dict[str, str], own: str) -> tuple[Path, Path]:
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    return tmp_path / "fs", tmp_path / "own"


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({}, "", 8),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 8),
        ({"cpu.max": "100000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "20000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "250000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "9900000 100000\n"}, "0::/\n", 8),
        # a quota of the process's own group, or of one between it and the root
        ({"a.slice/b.scope/cpu.max": "100000 100000\n"}, "0::/a.slice/b.scope\n", 1),
        ({"a.slice/cpu.max": "300000 100000\n", "a.slice/b/cpu.max": "max 100000\n"}, "0::/a.slice/b\n", 3),
        ({"other/cpu.max": "100000 100000\n"}, "0::/a\n", 8),
        ({"cpu.max": "200000 100000\n"}, "0::/../../outside\n", 2),
        # version 1
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", 8),
        ({"cpu/d/cpu.cfs_quota_us": "100000\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/d\n", 1),
        # nonsense sets no limit
        ({"cpu.max": "\n"}, "0::/\n", 8),
        ({"cpu.max": "5 0\n"}, "nonsense\n", 8),
    ],
)
def test_the_smallest_of_mask_and_quotas(tmp_path: Path, files: dict[str, str], own: str, cores: int) -> None:
    assert usable_cores(*place(tmp_path, files, own)) == cores


def test_a_mask_smaller_than_the_quota_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3}, raising=False)
    assert usable_cores(*place(tmp_path, {"cpu.max": "400000 100000"}, "0::/")) == 1


def test_a_system_without_masks_counts_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 1


def test_serving_and_stages_say_one_under_a_quota_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.scoring import threads_of

    fs, own = place(tmp_path, {"pod/cpu.max": "100000 100000"}, "0::/pod")
    monkeypatch.setattr(usable_cores, "__defaults__", (fs, own))
    assert Settings(model_uri="x").slots_per_process == 1
    assert threads_of(EvaluateConfig()) == 1
