"""The verbs that run one stage, through the front door, from folders and from a bucket: data, train, evaluate, gate."""

import json
import shutil
from pathlib import Path

import pytest

from serving.detector.bundle import read_manifest
from tests.bundles import jpeg
from tests.e2e.conftest import SMALL
from tests.fakes.gcs import FakeGcs
from tests.pipelines.conftest import Aidetect


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> list[str]:
    (tmp_path / "workspace").mkdir()
    shutil.copy(migrated, tmp_path / "workspace" / "mlflow.db")
    return [f"paths.workspace={tmp_path / 'workspace'}", *(f"{key}={value}" for key, value in SMALL.items())]


def send(gcs: FakeGcs, folder: Path, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            gcs.put(f"{uri}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.mark.system
def test_from_photos_in_a_bucket_to_a_verdict(
    aidetect: Aidetect, gcs: FakeGcs, settings: list[str], tmp_path: Path, sample_dir: Path
) -> None:
    """import -> verify -> train -> evaluate -> gate, each from what the one before left in the bucket."""
    packed = aidetect("data", "import", str(sample_dir), "-o", "gs://data/packed", "--json", settings=settings)
    assert packed.code == 0, packed.err
    assert packed.document["summary"]["splits"]["train"]["rows"] == 160
    assert {"data/packed/dataset.json", "data/packed/report.html"} <= set(gcs.objects)
    again = aidetect("data", "import", str(sample_dir), "-o", "gs://data/packed", settings=settings)
    assert again.code == 1 and "there is something already" in again.err
    verified = aidetect("data", "verify", "gs://data/packed", "--json", settings=settings)
    assert verified.code == 0, verified.err
    assert verified.document["summary"]["splits"]["test"]["rows"] == 160

    bundle, curves = tmp_path / "bundle", tmp_path / "curves.html"
    words = ["train", "--dataset", "gs://data/packed", "-o", str(bundle), "--curves", str(curves), "--json"]
    trained = aidetect(*words, settings=settings)
    assert trained.code == 0, trained.err
    assert trained.document["digest"] == read_manifest(bundle).digest
    assert curves.read_text().startswith("<!doctype html>")
    twice = aidetect("train", "--dataset", "gs://data/packed", "-o", str(bundle), settings=settings)
    assert twice.code == 1 and "there is a bundle already" in twice.err

    send(gcs, bundle, "gs://models/first")
    folder = tmp_path / "evaluation"
    words = ["evaluate", "--dataset", "gs://data/packed", "--bundle", "gs://models/first", "-o", str(folder)]
    scored = aidetect(*words, "--champion", str(bundle), "--json", settings=settings)
    assert scored.code == 0, scored.err
    assert scored.document["bundle_digest"] == read_manifest(bundle).digest
    assert scored.document["champion"]["identical"] is True
    assert (folder / "report.html").is_file()

    send(gcs, folder, "gs://models/evaluation")
    judged = aidetect("gate", "gs://models/evaluation", "--json", settings=[*settings, "gate.min_accuracy=0.99"])
    assert judged.code == 2
    assert judged.document["passed"] is False
    named = {check["name"]: check["outcome"] for check in judged.document["checks"]}
    assert named["accuracy"] == "refused"


def test_evaluate_and_train_tell_on_the_terminal(
    aidetect: Aidetect, settings: list[str], tmp_path: Path, sample_dir: Path, toy_bundle: Path
) -> None:
    packed = tmp_path / "packed"
    imported = aidetect("data", "import", str(sample_dir), "-o", str(packed), settings=settings)
    assert imported.code == 0, imported.err
    assert "train " in imported.out and "fingerprint" in imported.out
    out = tmp_path / "evaluation"
    words = ["evaluate", "--dataset", str(packed), "--bundle", str(toy_bundle), "-o", str(out)]
    shown = aidetect(*words, settings=[*settings, "evaluate.champion_uri="])
    assert shown.code == 0, shown.err
    accuracy = json.loads((out / "evaluation.json").read_text())["test"]["metrics"]["accuracy"]["value"]
    assert f"accuracy         {accuracy:.4f}" in shown.out and str(out / "report.html") in shown.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--dataset", "gs://data/none", "-o", "OUT"], "gs://data/none: no such folder"),
        (["train", "--dataset", "/nowhere", "-o", "OUT"], "/nowhere"),
        (["evaluate", "--dataset", "/nowhere", "--bundle", "/none", "-o", "OUT"], "/none: no such folder"),
        (["evaluate", "--dataset", "/nowhere", "--bundle", "gs://models/none", "-o", "OUT"], "no such folder"),
        (["gate", "gs://models/none"], "gs://models/none: no such folder"),
        (["gate", "/nowhere"], "/nowhere: no readable evaluation.json"),
        (["data", "import", "/nowhere", "-o", "gs://data/x"], "/nowhere: no such folder"),
        (["data", "download", "mnist", "-o", "OUT"], "unknown dataset 'mnist'; known: cifake"),
        (["data", "download", "hf:///nowhere", "-o", "OUT"], "hf:///nowhere: no such folder"),
        (["drift"], "--url"),
        (["drift", "--url", "http://127.0.0.1:9"], "is it running?"),
        (["drift", "--prometheus", "http://127.0.0.1:9"], "is it running?"),
    ],
)
def test_nothing_there_is_one_line_and_leaves_nothing(
    aidetect: Aidetect, gcs: FakeGcs, settings: list[str], tmp_path: Path, words: list[str], message: str
) -> None:
    out = tmp_path / "out"
    with_settings = [] if words[:2] == ["data", "download"] else settings
    ran = aidetect(*[str(out) if word == "OUT" else word for word in words], settings=with_settings)
    assert ran.code == 1 and message in ran.err, ran.err
    assert len(ran.err.splitlines()) == 1
    assert not (out.exists() and any(out.iterdir())) and gcs.objects == {}


def test_a_labelled_folder_in_a_bucket_is_measured_up_to_a_bound(
    aidetect: Aidetect, gcs: FakeGcs, settings: list[str], toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.evaluate import outside

    for label, level in (("real", 40), ("ai_generated", 20)):
        gcs.put(f"gs://data/outside/{label}/a.jpg", jpeg(level))
    words = ["evaluate", "--bundle", str(toy_bundle), "--outside", "gs://data/outside", "--json"]
    ran = aidetect(*words, settings=settings)
    assert ran.code == 0, ran.err
    assert [(c["label"], c["confident_errors"]["value"]) for c in ran.document["classes"]] == [
        ("real", 0.0),
        ("ai_generated", 1.0),
    ]
    assert ran.document["folder"] == "gs://data/outside"
    monkeypatch.setattr(outside, "MOST_PHOTOS", 1)
    ran = aidetect(*words, settings=settings)
    assert ran.code == 1 and "gs://data/outside: holds more than 1 files; take a sample of them" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_upload_that_is_cut_off_leaves_no_half_dataset(
    aidetect: Aidetect, gcs: FakeGcs, settings: list[str], sample_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.platform import cloud_storage

    monkeypatch.setattr(cloud_storage, "SEND_RETRY_S", 1.0)
    gcs.cut = "test.parquet"
    ran = aidetect("data", "import", str(sample_dir), "-o", "gs://data/packed", settings=settings)
    assert ran.code == 1 and "upload to gs://data/packed" in ran.err and len(ran.err.splitlines()) == 1
    assert gcs.objects == {}


def test_download_takes_a_local_folder_in_hub_layout(aidetect: Aidetect, tmp_path: Path, sample_dir: Path) -> None:
    data = tmp_path / "hub" / "data"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        shutil.copy(sample_dir / f"{split}.parquet", data / f"{split}-00000-of-00001.parquet")
    out = tmp_path / "out"
    ran = aidetect("data", "download", f"hf://{tmp_path / 'hub'}", "-o", str(out), "--json")
    assert ran.code == 0, ran.err
    assert set(ran.document["summary"]["splits"]) >= {"train", "val", "test"}
    assert (out / "dataset.json").is_file()


def test_drift_reads_a_server_and_a_prometheus(aidetect: Aidetect, served: str) -> None:
    ran = aidetect("drift", "--url", served, "--json")
    assert ran.code == 0, ran.err
    assert (ran.document["drift_state"], ran.document["model_version"]) == ("ok", "3")
    assert ran.document["champion_age_days"] == pytest.approx(10, abs=0.1)
    shown = aidetect("drift", "--url", served)
    assert shown.out.splitlines() == ["drift: ok", "model version 3, age 10.0 days, 0 new labels"]
    watched = aidetect("drift", "--prometheus", served, "--json")
    assert watched.code == 0, watched.err
    assert (watched.document["drift_state"], watched.document["model_version"]) == ("alarm", "3")
    assert watched.document["diagnosis"] == "largest distances: probability 0.31"
