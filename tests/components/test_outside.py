"""`aidetect evaluate --outside`: errors that look sure are counted, and an AUC that means nothing is not told."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli.app import app
from serving.detector.conclusion import DecisionBands
from serving.detector.domain import TrainedDomain
from tests.bundles import jpeg, make_bundle

BANDS = DecisionBands(real_below=0.4, ai_from=0.6)
DOMAIN = TrainedDomain(min_side_px=(32.0, 100.0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls bright photos generated, and knows photos of 32 to 100 px."""
    return make_bundle(tmp_path_factory.mktemp("outside") / "bundle", bands=BANDS, domain=DOMAIN)


def write(folder: Path, label: str, photos: list[bytes]) -> None:
    (folder / label).mkdir(parents=True)
    for number, data in enumerate(photos):
        (folder / label / f"{number:03d}.jpg").write_bytes(data)


def evaluated(bundle: Path, folder: Path) -> Any:
    result = CliRunner().invoke(app, ["evaluate", "--bundle", str(bundle), "--outside", str(folder), "--json"])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return json.loads(result.stdout)


def test_rates_are_those_of_the_folder_and_the_auc_has_an_interval(bundle: Path, tmp_path: Path) -> None:
    levels = np.random.default_rng(5).integers(60, 200, 60)
    write(tmp_path / "f", "genuine", [])
    write(tmp_path / "photos", "real", [jpeg(int(level) - 25, seed=i) for i, level in enumerate(levels)])
    write(tmp_path / "photos", "fake", [jpeg(int(level) + 25, seed=99 + i) for i, level in enumerate(levels)])
    (tmp_path / "photos/fake/broken.jpg").write_bytes(b"no photo")
    (tmp_path / "photos/fake/loop").symlink_to(tmp_path)
    found = evaluated(bundle, tmp_path / "photos")
    real, generated = found["classes"]
    assert (real["label"], real["n"], real["refused"]) == ("real", 60, 0)
    assert (generated["label"], generated["n"], generated["refused"]) == ("ai_generated", 60, 1)
    assert 0 < real["wrong"]["value"] < 1 and real["outside_domain"]["value"] == 0
    assert real["confident_errors"] == real["confident_errors_by_score"]
    auc = found["roc_auc"]
    assert auc["low"] < auc["value"] < auc["high"] and 0.6 < auc["value"] < 0.95
    assert found["roc_auc_refused"] == ""


def test_outside_of_the_domain_nothing_is_sure_and_all_is_for_review(bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "photos", "ai", [jpeg(30, (300, 300), seed=i) for i in range(5)])
    found = evaluated(bundle, tmp_path / "photos")
    (one,) = found["classes"]
    assert one["wrong"]["value"] == one["confident_errors_by_score"]["value"] == 1.0
    assert one["confident_errors"]["value"] == one["wrong_decisions"]["value"] == 0.0
    assert one["to_review"]["value"] == one["outside_domain"]["value"] == 1.0
    assert one["to_review"]["low"] < 1.0
    assert found["roc_auc"] is None and "ai_generated photos only" in found["roc_auc_refused"]


@pytest.mark.parametrize(("trace", "words"), [("size", "width"), ("codec", "quantisation"), ("few", "under 20")])
def test_an_auc_that_comes_for_free_is_refused(bundle: Path, tmp_path: Path, trace: str, words: str) -> None:
    def photo(i: int, generated: bool) -> bytes:
        side = 64 + (i % 3 if trace != "size" else 20 * generated)
        return jpeg(100 + 8 * (i % 7) + 10 * generated, (side, 64), 70 if generated and trace == "codec" else 90, i)

    n = 8 if trace == "few" else 40
    for label in ("real", "ai_generated"):
        write(tmp_path / "photos", label, [photo(i, label != "real") for i in range(n)])
    found = evaluated(bundle, tmp_path / "photos")
    assert found["roc_auc"] is None
    named = {s["feature"] for s in found["shortcuts"] if s["auc"] > 0.9}
    assert words in found["roc_auc_refused"] or any(words in name for name in named)


def test_what_is_no_labelled_folder_is_said_in_one_line(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "real").mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "JPEG")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(buffer.getvalue())
    for folder, words in (
        ("flat", "no folder of a class"),
        ("empty", "hold no photos"),
        ("nowhere", "no folder there"),
    ):
        command = ["evaluate", "--bundle", str(bundle), "--outside", str(tmp_path / folder)]
        assert words in str(CliRunner().invoke(app, command).exception)
    assert "--outside PLACE" in str(CliRunner().invoke(app, ["evaluate", "--bundle", str(bundle)]).exception)
