"""The second pipeline: compiled for each place, and run by KFP's own runner to the same rows as `aidetect score`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli.app import run_app
from serving.detector.detector import Detector
from tests.e2e.conftest import ROOT

SOURCE, RESULTS = "gs://shop/photos", "gs://shop/results"


def compiled(path: Path, *options: str) -> dict[str, Any]:
    assert run_app(["compile", "-o", str(path), *options, "--config", str(ROOT / "pipeline_config.yaml")]) == 0
    document: dict[str, Any] = json.loads(path.read_text())
    return document


@pytest.mark.parametrize("target", ["local", "kubeflow"])
def test_the_catalogue_compiles_with_a_bound_on_what_runs_at_once(tmp_path: Path, target: str) -> None:
    spec = compiled(
        tmp_path / "spec.json", "--target", target, "--catalogue", SOURCE, RESULTS,
        "--set", "catalogue.parallel_tasks=3", "--profile", "sample",
    )  # fmt: skip
    text = json.dumps(spec)
    assert spec["pipelineInfo"] == {
        "name": "ai-product-photo-catalogue",
        "description": "A verdict for every photo of a catalogue, as Parquet.",
    }
    assert set(spec["deploymentSpec"]["executors"]) == {
        "exec-plan-catalogue", "exec-score-group", "exec-report-catalogue",
    }  # fmt: skip
    assert '"parallelismLimit": 3' in text
    assert '"maxRetryCount": 2' in text
    assert SOURCE in text
    assert RESULTS in text


@pytest.mark.system
def test_kfps_runner_scores_a_catalogue_as_the_detector_would(toy_bundle: Path, tmp_path: Path) -> None:
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/bad.jpg").write_bytes(b"\xff\xd8\xff")
    compiled(
        tmp_path / "spec.json", "--target", "local", "--catalogue", str(tmp_path / "photos"), str(tmp_path / "out"),
        "--set", "catalogue.shard_photos=4", "--set", "catalogue.workers=1", "--profile", "sample",
    )  # fmt: skip
    (tmp_path / "parameters.json").write_text(json.dumps({"model_uri": str(toy_bundle)}))
    for _ in range(2):  # a second run finds everything done
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.targets.kfp_process", "--spec", str(tmp_path / "spec.json"),
             "--parameters", str(tmp_path / "parameters.json"), "--root", str(tmp_path / "root")],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = sorted((tmp_path / "out/parts").glob("*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    detector = Detector.load(toy_bundle, threads=1)
    assert {row["id"]: row["refused_reason"] for row in rows if row["refused_reason"]} == {"bad.jpg": "corrupt"}
    for row in rows:
        if row["refused_reason"] is None:
            expected = detector.judge((tmp_path / "photos" / row["id"]).read_bytes()).verdict
            assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert (tmp_path / "out/summary.html").is_file()
