"""The stage through its front doors: the function, the command line, the KFP component."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Metrics, Model
from kfp.dsl import Dataset as DatasetArtifact

from components.artifacts.context import RunContext
from components.artifacts.evaluation import PREDICTIONS_PARQUET, read_evaluation
from components.evaluate.champion import find_champion
from components.evaluate.component import evaluate as component
from components.evaluate.config import EvaluateConfig
from components.evaluate.sample import caveat
from components.evaluate.stage import flat_metrics
from serving.detector.bundle import read_manifest
from tests.components.evaluate.conftest import Outcome, run
from tests.components.evaluate.packed import pack, sample_rows


def test_the_written_evaluation_is_the_returned_one(toy_outcome: Outcome, toy_bundle: Path) -> None:
    assert read_evaluation(toy_outcome.folder) == toy_outcome.evaluation
    assert toy_outcome.evaluation.bundle_digest == read_manifest(toy_bundle).digest
    assert toy_outcome.evaluation.bundle_bytes == sum(
        (toy_bundle / name).stat().st_size for name in read_manifest(toy_bundle).files
    )
    assert toy_outcome.evaluation.latency_ms is not None
    assert toy_outcome.evaluation.latency_ms > 0


def test_every_figure_can_be_recomputed_from_the_predictions(toy_outcome: Outcome) -> None:
    from sklearn import metrics as reference

    rows = pq.read_table(toy_outcome.folder / PREDICTIONS_PARQUET).to_pylist()
    for model, scores in (
        ("candidate", toy_outcome.evaluation.test),
        ("champion", toy_outcome.comparison.champion),
    ):
        part = [r for r in rows if r["model"] == model and r["split"] == "test"]
        y = np.array([r["label"] == "ai_generated" for r in part])
        said = np.array([r["prediction"] == "ai_generated" for r in part])
        p = np.array([r["probability"] for r in part])
        assert len(part) == scores.n == 180
        assert scores.metrics["accuracy"].value == pytest.approx(np.mean(y == said))
        assert scores.metrics["f1"].value == pytest.approx(reference.f1_score(y, said))
        assert scores.metrics["roc_auc"].value == pytest.approx(reference.roc_auc_score(y, p))
        assert {r["confidence"] for r in part} <= {"high", "medium", "low"}
        assert len({r["pixel_sha256"] for r in part}) == 180
    unseen = toy_outcome.evaluation.unseen_generator
    assert unseen is not None
    assert sum(r["split"] == "unseen_generator" for r in rows) == unseen.n == 24


def test_the_opposite_model_has_the_opposite_accuracy(toy_outcome: Outcome, inverted_bundle: Path) -> None:
    found = toy_outcome.evaluation
    # the calibration bias of 0.05 is not mirrored: the few scores it moves across the threshold are allowed for
    assert found.test.metrics["accuracy"].value + toy_outcome.comparison.champion.metrics[
        "accuracy"
    ].value == pytest.approx(1, abs=0.05)
    assert found.test.metrics["accuracy"].value > 0.65
    difference = toy_outcome.comparison.accuracy_difference
    assert difference.low is not None and difference.low > 0
    # four shops are four witnesses, however many images each sent: their signs fall one way twice in 2^4
    assert toy_outcome.comparison.mcnemar_p == pytest.approx(2 / 2**4)
    assert found.test.units == toy_outcome.comparison.champion.units == 4
    assert not toy_outcome.comparison.identical
    assert toy_outcome.comparison.champion_version == read_manifest(inverted_bundle).digest[:12]


def test_slices_hold_each_image_of_their_kind(toy_outcome: Outcome) -> None:
    slices = {(s.dimension, s.name): s for s in toy_outcome.evaluation.test.slices}
    assert slices[("class", "real")].n == slices[("class", "ai_generated")].n == 90
    assert {name for dimension, name in slices if dimension == "generator"} == {"gan", "diffusion"}
    assert {name for dimension, name in slices if dimension == "source"} == {f"shop_{i}" for i in range(4)}
    # every image has its shorter side in one band, and a slice that is the whole split says nothing
    assert not [name for dimension, name in slices if dimension == "resolution"]
    for dimension in ("class", "source"):
        assert sum(s.n for (d, _), s in slices.items() if d == dimension) == 180
    keys = {f"{dimension}={name}" for dimension, name in slices}
    assert set(toy_outcome.comparison.slice_differences) == keys


def test_robustness_says_what_it_stands_on(toy_outcome: Outcome) -> None:
    found = toy_outcome.evaluation
    assert {cell.n for cell in found.robustness} == {40}
    assert "40 of the 180" in found.robustness_note
    assert all(cell.champion_difference is not None for cell in found.robustness)


def test_the_report_stands_alone_and_shows_the_worst_mistakes(toy_outcome: Outcome) -> None:
    page = toy_outcome.report.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert page.count("data:image/svg+xml;base64,") == 6
    assert {p.name for p in (toy_outcome.folder / "plots").iterdir()} == {
        f"{name}.svg" for name in ("roc", "precision_recall", "reliability", "scores", "confusion", "robustness")
    }
    rows = pq.read_table(toy_outcome.folder / PREDICTIONS_PARQUET).to_pylist()
    mine = [r for r in rows if r["model"] == "candidate" and r["split"] == "test"]
    false_ai = sorted(
        (r for r in mine if (r["label"], r["prediction"]) == ("real", "ai_generated")), key=lambda r: -r["probability"]
    )
    false_real = sorted(
        (r for r in mine if (r["label"], r["prediction"]) == ("ai_generated", "real")), key=lambda r: r["probability"]
    )
    shown = re.findall(r"test/(\d+) \(\d{4}\.jpg\)", page)
    assert [int(row) for row in shown] == [r["row"] for r in false_ai[:3] + false_real[:3]]
    assert page.count("data:image/png;base64,") == 2 * len(shown) == 12
    opening, test = re.findall(r'<p class="lead">(.*?)</p>', page)[0], toy_outcome.evaluation.test
    counts, hurt = test.confusion, min(toy_outcome.evaluation.robustness, key=lambda cell: cell.accuracy.value)
    assert opening.startswith(
        f"Of {test.n} test images that training never saw, {counts.true_real + counts.true_ai} were"
    )
    assert f"{counts.false_ai} of {counts.true_real + counts.false_ai} real photos were called generated" in opening
    assert f"{hurt.corruption} {hurt.level} hurt most" in opening
    assert re.findall(r'alt="(\w+)"><figcaption>', page) == ["confusion", "scores", "robustness"], "three pictures"
    assert page.index("</figcaption>") < page.index("All figures") and "@media print" in page
    assert page.count("Real, and called generated: score ") == page.count("Generated, and called real: score ") == 3
    accuracy = toy_outcome.evaluation.test.metrics["accuracy"]
    assert accuracy.low is not None and accuracy.high is not None
    assert f"{accuracy.value * 100:.1f} %" in page
    assert f"{accuracy.low * 100:.1f}–{accuracy.high * 100:.1f}" in page


def test_without_a_champion_it_says_so(dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path) -> None:
    found = run(toy_bundle, dataset, quick.model_copy(update={"robustness": {}}), tmp_path)
    assert found.evaluation.champion is None
    assert found.evaluation.champion_note == "No comparison: evaluate.champion_uri is empty."
    assert found.evaluation.champion_note in found.report.read_text()
    assert found.evaluation.robustness == []
    assert not (found.folder / "plots" / "robustness.svg").exists()


def test_the_same_bundle_as_champion_is_identical(
    dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    found = run(toy_bundle, dataset, quick.model_copy(update={"champion_uri": str(toy_bundle)}), tmp_path)
    assert found.comparison.identical
    assert found.comparison.mcnemar_p == 1.0
    assert "the same bundle" in found.report.read_text()


def test_the_champion_comes_from_the_registry_and_the_figures_go_to_the_run(
    dataset: Path, toy_bundle: Path, inverted_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    context = RunContext(run_id="run-7", tracking_uri=uri, artifact_root=(tmp_path / "artifacts").as_uri())
    config = quick.model_copy(update={"champion_uri": EvaluateConfig().champion_uri, "robustness": {}})
    first = run(toy_bundle, dataset, config, tmp_path / "first", context)
    assert (
        first.evaluation.champion_note
        == "No champion yet: models:/ai-product-photo-detector@champion is not in the registry."
    )

    client = MlflowClient(uri, uri)
    client.create_registered_model(context.model_name)
    version = client.create_model_version(
        context.model_name, str(inverted_bundle), tags={"digest": read_manifest(inverted_bundle).digest}
    )
    assert find_champion(config, context, tmp_path) == (None, first.evaluation.champion_note)
    client.set_registered_model_alias(context.model_name, "champion", version.version)
    second = run(toy_bundle, dataset, config, tmp_path / "second", context)
    assert second.comparison.champion_version == str(version.version)

    experiment = client.get_experiment_by_name(context.experiment)
    assert experiment is not None
    (tracked,) = client.search_runs([experiment.experiment_id], "tags.run_id = 'run-7'")
    assert tracked.data.metrics["evaluate/test_accuracy"] == pytest.approx(
        second.evaluation.test.metrics["accuracy"].value
    )
    assert {f.path for f in client.list_artifacts(tracked.info.run_id, "evaluation")} == {
        "evaluation/evaluation.json",
        "evaluation/report.html",
    }


def test_equal_inputs_give_equal_evaluations(
    dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    first, second = (
        run(toy_bundle, dataset, quick.model_copy(update={"threads": threads}), tmp_path / str(threads))
        for threads in (1, 3)
    )
    same = {"latency_ms": None}
    assert first.evaluation.model_copy(update=same) == second.evaluation.model_copy(update=same)
    for name in ("roc.svg", "robustness.svg"):
        assert (first.folder / "plots" / name).read_bytes() == (second.folder / "plots" / name).read_bytes()


def test_figures_of_the_shipped_sample_carry_their_caveat(
    shipped_dir: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    copied = pack(tmp_path / "d", {"test": sample_rows(shipped_dir, "test")[:40]}, "gs://bucket/some-copy")
    found = run(toy_bundle, copied, quick.model_copy(update={"robustness": {}}), tmp_path)
    assert "not a detector for shop photos" in found.evaluation.caveat
    assert "not a detector for shop photos" in found.report.read_text()


@pytest.mark.parametrize("uri", ["data/sample", "/somewhere/data/sample/", "/tmp/unpacked/sample_cifake32"])
def test_the_shipped_sample_is_known_by_its_place(uri: str) -> None:
    assert caveat(uri, [])


def test_other_data_carries_no_caveat(toy_outcome: Outcome) -> None:
    assert toy_outcome.evaluation.caveat == ""


def test_the_component_fills_the_viewers_metrics(
    dataset: Path, toy_bundle: Path, quick: EvaluateConfig, tmp_path: Path
) -> None:
    outputs = {
        "evaluation": Artifact(uri=str(tmp_path / "evaluation")),
        "report": HTML(uri=str(tmp_path / "report")),
        "metrics": Metrics(uri=str(tmp_path / "metrics")),
        "classification": ClassificationMetrics(uri=str(tmp_path / "classification")),
    }
    as_floats = json.loads(json.dumps(quick.model_dump(mode="json")), parse_int=float)
    component.python_func(
        bundle=Model(uri=str(toy_bundle)),
        dataset=DatasetArtifact(uri=str(dataset)),
        config=as_floats,
        context={"run_id": "run-1"},
        job="",
        **outputs,
    )
    found = read_evaluation(tmp_path / "evaluation")
    assert outputs["metrics"].metadata == pytest.approx(flat_metrics(found))
    viewer = outputs["classification"].metadata
    rows = [row["row"] for row in viewer["confusionMatrix"]["rows"]]
    c = found.test.confusion
    assert rows == [[c.true_real, c.false_ai], [c.false_real, c.true_ai]]
    assert [s["displayName"] for s in viewer["confusionMatrix"]["annotationSpecs"]] == ["real", "ai_generated"]
    assert len(viewer["confidenceMetrics"]) == len(found.test.roc)
    json.dumps(viewer, allow_nan=False)
    assert (tmp_path / "report").read_text().startswith("<!doctype html>")
