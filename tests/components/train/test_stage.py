"""A training from packed data to a bundle: what it leaves, what it refuses, what an interrupt leaves behind."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl
from safetensors.numpy import load_file, save_file

from components.artifacts.context import RunContext
from components.artifacts.dataset import VAL, Dataset
from components.platform.tracking import record
from components.train.config import TrainConfig
from components.train.dataset import decode_validation
from components.train.export import _write_golden
from components.train.stage import train
from serving.detector import bundle
from serving.detector.decision import DecisionRule
from serving.detector.detector import Detector
from serving.detector.statistics import Reference
from serving.platform.errors import BundleError, StageError
from tests.components.train.conftest import Trained, fit
from tests.components.train.packed import TINY, pack_toy

CONTEXT = RunContext(run_id="toy-run")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(TINY | changes)


def test_the_bundle_loads_and_tells_bright_from_dark(trained: Trained) -> None:
    detector = Detector.load(trained.bundle)
    data = Dataset(trained.dataset)
    verdicts = [detector.judge(image).verdict for image in data.images(VAL)]
    truth = ["ai_generated" if label else "real" for label in data.table(VAL, ["label"]).column("label").to_pylist()]
    right = np.mean([v.prediction == t for v, t in zip(verdicts, truth, strict=True)])
    assert right >= 0.9
    assert detector.manifest.digest == trained.summary.digest
    assert detector.manifest.provenance.data_fingerprint == data.summary.fingerprint
    assert detector.manifest.provenance.run_id == "toy-run"
    assert TrainConfig.model_validate(detector.manifest.provenance.train_config) == trained.config


def test_the_head_and_the_map_give_the_logit(trained: Trained) -> None:
    detector = Detector.load(trained.bundle)
    pixels = np.stack([detector.pixels(image) for image in list(Dataset(trained.dataset).images(VAL))[:8]])
    logits, features = detector.logits_and_features(pixels)
    head = load_file(trained.bundle / bundle.HEAD)
    np.testing.assert_allclose(features[:, 0].mean((2, 3)) @ head["weight"][0] + head["bias"][0], logits, atol=1e-5)
    assert trained.summary.onnx_parity < 1e-4
    assert features.shape[1] == 1 and features.shape[3:] == (2, 2)


def test_the_graph_has_its_batch_norms_folded_and_its_weights_inside(trained: Trained) -> None:
    import onnx

    graph = onnx.load(trained.bundle / bundle.MODEL).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    assert [i.name for i in graph.input] == ["image"]
    assert [o.name for o in graph.output] == ["logit", "features"]
    assert not list(trained.bundle.glob("*.data"))


def test_the_graph_tells_nothing_of_the_machine_that_trained_it(trained: Trained) -> None:
    graph = (trained.bundle / "model.onnx").read_bytes()
    assert b"stack_trace" not in graph and b"site-packages" not in graph
    assert str(Path(__file__).resolve().parents[3]).encode() not in graph


def test_golden_examples_show_both_classes_and_the_reference_holds_all_of_val(trained: Trained) -> None:
    manifest = bundle.verify(trained.bundle)
    assert {example.label for example in manifest.golden} == {"real", "ai_generated"}
    distances = [abs(g.probability - manifest.decision.threshold) for g in manifest.golden]
    assert min(distances) >= 0.02
    reference = Reference.model_validate_json((trained.bundle / bundle.REFERENCE).read_text())
    assert reference.n == len(reference.logits) == len(reference.jpeg_quality) == 48


def test_golden_examples_show_both_verdicts_of_a_weak_model(trained: Trained, tmp_path: Path) -> None:
    dataset = Dataset(trained.dataset)
    validation = decode_validation(dataset, tmp_path, trained.config)
    # surest and least sure of each class are called real; one generated image in between is not
    logits = np.where(validation.labels == 1, -5.0, -3.0).astype(np.float32)
    generated, real = np.flatnonzero(validation.labels == 1), np.flatnonzero(validation.labels == 0)
    logits[generated[:2]], logits[real[0]] = (-0.2, 1.0), -0.3
    (tmp_path / "bundle").mkdir()
    golden = _write_golden(tmp_path / "bundle", dataset, validation, logits, DecisionRule())
    assert {example.prediction for example in golden} == {"real", "ai_generated"}
    assert len(golden) == 5


def test_curves_are_one_page_with_a_plot_and_every_epoch(trained: Trained) -> None:
    page = trained.curves.read_text()
    assert "<svg" in page
    assert page.count("<tr") == 1 + trained.summary.epochs
    assert "src=" not in page and 'href="http' not in page
    assert trained.summary.digest in page


def test_the_model_card_names_data_run_and_limits(trained: Trained) -> None:
    card = (trained.bundle / bundle.MODEL_CARD).read_text()
    for part in (
        "test_efficientnet",
        "toy-run",
        Dataset(trained.dataset).summary.fingerprint,
        "## Limits",
        "| val | 48 |",
    ):
        assert part in card


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(trained: Trained, tmp_path: Path) -> None:
    exported = load_file(trained.bundle / bundle.WEIGHTS)
    same = fit(trained.dataset, tmp_path / "same", config(loader_threads=5)).model.state_dict()
    assert all(np.array_equal(exported[name], value.numpy()) for name, value in same.items())
    other = fit(trained.dataset, tmp_path / "other", config(seed=1)).model.state_dict()
    assert not np.array_equal(exported["classifier.weight"], other["classifier.weight"].numpy())


def test_a_bundle_warm_starts_a_training_with_frozen_layers(trained: Trained, tmp_path: Path) -> None:
    start = trained.bundle / bundle.WEIGHTS
    sha = bundle.verify(trained.bundle).files[bundle.WEIGHTS]
    settings = config(weights_uri=str(start), weights_sha256=sha, frozen_layers=2, epochs=1, learning_rate=1e-4)
    warm = fit(trained.dataset, tmp_path / "warm", settings)
    # after one timid epoch it stands where the other training ended; from a random start it would be at 0.7
    assert warm.history[-1]["val_log_loss"] == pytest.approx(trained.summary.val_log_loss, abs=0.05)
    assert trained.summary.val_log_loss < 0.6
    before, after = load_file(start), {name: value.numpy() for name, value in warm.model.state_dict().items()}
    frozen = [name for name in before if name.startswith(("conv_stem", "bn1", "blocks.0"))]
    assert len(frozen) > 5
    assert all(np.array_equal(before[name], after[name]) for name in frozen)
    assert not np.array_equal(before["conv_head.weight"], after["conv_head.weight"])


@pytest.mark.system  # slow on a CPU; what diverges below goes the same way
def test_half_precision_and_mixed_sizes_take_the_same_path(tmp_path: Path) -> None:
    data = pack_toy(tmp_path / "d", sizes=[(40, 56), (64, 48), (50, 50)])
    # half precision is slow on a CPU: one epoch, which is enough for the toy data
    settings = config(amp="fp16", cache_px=48, limit=80, epochs=1, low_res_epochs=0)
    fitted = fit(data, tmp_path / "scratch", settings)
    assert fitted.history[-1]["val_roc_auc"] >= 0.9


def test_early_stopping_keeps_the_best_epoch(toy_data: Path, tmp_path: Path) -> None:
    settings = config(epochs=30, learning_rate=0.02, early_stopping_patience=1, low_res_epochs=0)
    fitted = fit(toy_data, tmp_path, settings)
    aucs = [record["val_roc_auc"] for record in fitted.history]
    assert len(aucs) < 30
    assert fitted.best_epoch == len(aucs) - 1 == int(np.argmax(aucs)) + 1


def test_a_diverging_loss_stops_with_one_line_and_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    tensors = load_file(trained.bundle / bundle.WEIGHTS)
    tensors["classifier.weight"] *= np.float32(1e7)  # fits f32, not the half precision of AMP
    start = tmp_path / "start.safetensors"
    save_file(tensors, start)
    settings = config(weights_uri=str(start), weights_sha256=sha256(start), amp="fp16", limit=32)
    with pytest.raises(StageError, match=r"the loss became (inf|nan) in epoch 1, .*train\.amp=off"):
        train(trained.dataset, tmp_path / "b", settings, CONTEXT)
    assert not (tmp_path / "b").exists()


def exported_otherwise(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter, which takes most of a toy training's time, gives the graph of the network `trained`."""
    graph = (trained.bundle / bundle.MODEL).read_bytes()
    monkeypatch.setattr("components.train.export.write_onnx", lambda *given: given[-1].write_bytes(graph))


def test_an_interrupt_leaves_nothing_that_looks_like_a_bundle(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_otherwise(trained, monkeypatch)

    def interrupted(source: Path, target: Path) -> None:
        if target.name == bundle.MODEL:
            raise KeyboardInterrupt
        target.write_bytes(Path(source).read_bytes())

    monkeypatch.setattr("components.train.export.shutil.copyfile", interrupted)
    scratch = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        # the same seed gives the network of that graph
        train(trained.dataset, tmp_path / "b", config(scratch_dir=str(scratch)), CONTEXT)
    with pytest.raises(BundleError, match="not a model bundle"):
        bundle.verify(tmp_path / "b")
    assert list(scratch.iterdir()) == []


def test_an_export_that_does_not_reproduce_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_otherwise(trained, monkeypatch)
    with pytest.raises(StageError, match=r"ONNX graph differs from torch by \d+\.?\d* in the logit"):
        train(trained.dataset, tmp_path / "b", config(epochs=1), CONTEXT)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "test_efficientnett"}, "unknown architecture 'test_efficientnett'.*test_efficientnet"),
        ({"architecture": "mobilenetv3_small_050"}, "cannot be explained from its last feature map"),
        ({"architecture": "test_vit"}, "cannot be explained|does not take"),
        ({"frozen_layers": 99}, "leaves nothing to train"),
        ({"batch_size": 512}, "do not fill one batch of 512"),
        ({"weights_uri": "/nowhere.safetensors", "weights_sha256": "0"}, "no file"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    toy_data: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(StageError, match=message) as caught:
        train(toy_data, tmp_path / "b", config(**changes), CONTEXT)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_weights_are_read_only_when_sha256_and_shapes_fit(toy_data: Path, trained: Trained, tmp_path: Path) -> None:
    weights = trained.bundle / bundle.WEIGHTS
    with pytest.raises(StageError, match="not the weights you named"):
        train(toy_data, tmp_path / "b", config(weights_uri=str(weights), weights_sha256="0" * 64), CONTEXT)
    other = tmp_path / "other.safetensors"
    save_file({"conv_stem.weight": np.zeros((4, 3, 3, 3), dtype=np.float32)}, other)
    with pytest.raises(StageError, match="does not fit test_efficientnet"):
        train(toy_data, tmp_path / "b", config(weights_uri=str(other), weights_sha256=sha256(other)), CONTEXT)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ({"train": 32}, (0, 1), "no val images"),
        ({"train": 32, "val": 8}, (0,), "no image of class 'ai_generated'"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, rows: dict[str, int], labels: tuple[int, ...], message: str
) -> None:
    data = pack_toy(tmp_path / "d", rows=rows, labels=labels)
    with pytest.raises(StageError, match=message):
        train(data, tmp_path / "b", config(), CONTEXT)


def test_no_dataset_and_a_used_output_folder_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no dataset\.json"):
        train(tmp_path, tmp_path / "b", config(), CONTEXT)
    with pytest.raises(StageError, match="there is a bundle already"):
        train(trained.dataset, trained.bundle, config(), CONTEXT)


def test_the_kfp_face_takes_kfps_floats_and_all_stands_in_metadata_and_mlflow(toy_data: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    from components.train.component import train as component

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    # as an earlier run may answer for the stage: nothing among its inputs says which run this is, only its outputs do
    context = RunContext(
        run_id="", tracking_uri=uri, artifact_root=(tmp_path / "artifacts").as_uri(), reason="", job_prefix="job-"
    )
    made_at = tmp_path / "job-tracked" / "train_7"
    floats = {k: float(v) if isinstance(v, int) else v for k, v in (TINY | {"epochs": 2, "limit": 80}).items()}
    made = {
        "bundle": dsl.Model(uri=str(made_at / "bundle")),
        "curves": dsl.HTML(uri=str(made_at / "curves.html")),
        "metrics": dsl.Metrics(uri=str(made_at / "metrics")),
    }
    component.python_func(
        dataset=dsl.Dataset(uri=str(toy_data)),
        config=floats,
        context=json.loads(context.model_dump_json()),
        job="",
        **made,
    )
    assert made["bundle"].metadata["digest"] == bundle.verify(made_at / "bundle").digest
    assert 0 <= made["metrics"].metadata["val_accuracy"] <= 1
    assert "at most 80 images" in (made_at / "bundle" / bundle.MODEL_CARD).read_text()

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(context.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.run_id = 'tracked'")
    assert "reason" not in run.data.tags
    record(context.model_copy(update={"run_id": "tracked", "reason": "drift"}), metrics={})  # as the next stage does
    assert client.get_run(run.info.run_id).data.tags["reason"] == "drift"
    assert run.data.params["train.architecture"] == "test_efficientnet"
    assert run.data.params["train.augment.jpeg_p"] == "0.5"
    assert run.data.tags["data_fingerprint"] == Dataset(toy_data).summary.fingerprint
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/train_loss")]
    assert steps == [1, 2]
    stored = {file.path for file in client.list_artifacts(run.info.run_id, "train")}
    assert {"train/config.json", "train/curves.html", "train/MODEL_CARD.md"} <= stored


def test_an_unreachable_tracking_server_stops_before_the_training(toy_data: Path, tmp_path: Path) -> None:
    context = RunContext(run_id="x", tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StageError, match=r"mlflow\.db: .*; set tracking\.uri"):
        train(toy_data, tmp_path / "b", config(), context)
