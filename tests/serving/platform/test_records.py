"""Documents of strangers: no reader of ours takes more than a record has, or waits for a pipe."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from components.artifacts.dataset import Dataset
from components.artifacts.evaluation import read_evaluation
from components.artifacts.model_version import read_model_version, read_release
from components.artifacts.verdict import read_verdict
from pipelines.runs import list_runs
from serving import registry
from serving.detector.bundle import read_manifest
from serving.detector.statistics import read_reference
from serving.lifecycle import LifecycleMetrics
from serving.platform.errors import AidetectError, RunError
from serving.platform.records import RECORD_BYTES, read_record, tail
from serving.provenance.credentials import _read_trust_list

READERS: dict[str, Callable[[Path], object]] = {
    "dataset.json": Dataset,
    "evaluation.json": read_evaluation,
    "manifest.json": read_manifest,
    "model_version.json": read_model_version,
    "reference.json": read_reference,
    "release/evaluation.json": registry.read_release,
    "release/release.json": read_release,
    "trust.pem": lambda folder: _read_trust_list(folder / "trust.pem"),
    "verdict.json": read_verdict,
}


def endless(path: Path) -> None:
    """A quarter of a GiB that takes no room."""
    with path.open("wb") as file:
        file.truncate(1 << 28)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("make", [endless, os.mkfifo])
def test_what_is_no_record_is_refused_in_a_line_and_never_read_whole(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    if name == "release/evaluation.json" and make is os.mkfifo:
        assert READERS[name](tmp_path) == {}  # no file, so no record
        return
    tracemalloc.start()
    try:
        with pytest.raises(AidetectError) as caught:
            READERS[name](tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 3 * 2 * RECORD_BYTES
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_runs_whose_record_is_none_hide_no_other_from_the_list_and_the_gauges(tmp_path: Path) -> None:
    for name, make in (("a", endless), ("b", os.mkfifo)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        make(tmp_path / "runs" / name / "run.json")
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "run.json").write_text(
        '{"status": "refused", "started_at": "2026-11-28T00:00:00+00:00"}'
    )
    metrics = CollectorRegistry()
    tracemalloc.start()
    try:
        LifecycleMetrics(metrics, tmp_path / "runs").refresh()
        damaged: list[RunError] = []
        assert list(list_runs(tmp_path, damaged)) == []
        assert tracemalloc.get_traced_memory()[1] < 3 * RECORD_BYTES
    finally:
        tracemalloc.stop()
    assert metrics.get_sample_value("aidetect_gate_refusals_in_a_row") == 1
    said = "\n".join(str(error) for error in damaged)
    assert "larger than any record of ours (8 MiB)" in said
    assert "no plain file" in said


def test_a_record_is_read_whole_up_to_its_bound_and_a_log_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"x" * 99 + b"end")
    assert read_record(path, 102) == path.read_bytes()
    with pytest.raises(OSError, match="larger than any record of ours"):
        read_record(path, 101)
    with pytest.raises(IsADirectoryError):
        read_record(tmp_path)
    assert tail(path, 3) == "end"
    assert tail(path) == path.read_text()
