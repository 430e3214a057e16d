"""A trained network to a sealed bundle, with the proof that what is served is what was trained."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from components.artifacts.context import RunContext
from components.artifacts.dataset import VAL, Dataset
from components.train.augment import augment
from components.train.cache import preparation
from components.train.calibrate import Calibration, calibrate
from components.train.config import TrainConfig
from components.train.dataset import Validation, encoded
from components.train.graph import write_onnx
from components.train.loop import Fitted, score
from components.train.model import Network, linear_head
from serving.detector import bundle
from serving.detector.bundle import GoldenExample, Manifest, Provenance
from serving.detector.decision import DecisionRule
from serving.detector.detector import Detector
from serving.detector.domain import TrainedDomain, detail, trained_domain
from serving.detector.engine import Engine, Floats
from serving.detector.image import sniff
from serving.detector.labels import LABELS
from serving.detector.preprocess import to_input
from serving.detector.statistics import build_reference
from serving.platform.errors import BundleError, StageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.detector.preprocess import Pixels

PARITY_TOLERANCE: Final = 1e-3
"""Largest accepted difference between an ONNX logit and torch's, relative to the largest logit (at least 1)."""
_GOLDEN_MARGIN: Final = 0.02
"""A golden example stays this far from the threshold, so that another CPU's rounding cannot turn its verdict."""
_SUFFIX: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "AVIF": ".avif", "HEIF": ".heic"}
_ENGINE_BATCH: Final = 32
_LIBRARIES: Final = ("torch", "timm", "onnx", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Exported:
    """A sealed bundle and the numbers measured while making it."""

    manifest: Manifest
    calibration: Calibration
    logits: Floats
    """Of the validation images, by the exported graph."""
    parity: float
    """Largest absolute difference of an ONNX logit from torch's over the validation images."""
    head_gap: float
    """Largest absolute difference of (mean feature map x head + bias) from the logit, both by the graph."""


def export_bundle(
    folder: Path,
    network: Network,
    fitted: Fitted,
    dataset: Dataset,
    validation: Validation,
    config: TrainConfig,
    context: RunContext,
    threads: int,
) -> Exported:
    """Write and seal a bundle in `folder` (new), then load it as the server will.

    Raises:
        StageError: the exported graph does not reproduce the trained network.
    """
    from components.train.card import model_card

    folder.mkdir(parents=True)
    head = _write_network(folder, network, fitted, config.input_px)
    engine = Engine(folder / bundle.MODEL, threads)
    logits, head_gap = _score_by_graph(engine, validation.inputs, head)
    parity = _prove(logits, head_gap, network, fitted, validation)
    calibration = calibrate(logits, validation.labels, _corrupted_logits(engine, validation, config), config)
    reference = build_reference(logits, calibration.rule, validation.qualities, config.seed)
    (folder / bundle.REFERENCE).write_text(reference.model_dump_json())
    domain = _domain(validation, config)
    golden = _write_golden(folder, dataset, validation, logits, calibration.rule)
    (folder / bundle.MODEL_CARD).write_text(
        model_card(config, context, dataset.summary, fitted, calibration, domain, parity), encoding="utf-8"
    )
    manifest = bundle.seal(
        folder,
        name=context.model_name,
        architecture=config.architecture,
        input_px=config.input_px,
        preprocessing=preparation(config).recipe,
        decision=calibration.rule,
        bands=calibration.bands,
        domain=domain,
        golden=golden,
        provenance=Provenance(
            run_id=context.run_id,
            git_sha=context.git_sha,
            data_fingerprint=dataset.summary.fingerprint,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=config.seed,
            train_config=config.model_dump(mode="json"),
            libraries={name: version(name) for name in _LIBRARIES},
        ),
    )
    try:
        Detector.load(folder, threads)
    except BundleError as error:
        raise StageError(f"the exported bundle does not load: {error}") from error
    return Exported(manifest, calibration, logits, parity, head_gap)


def publish(folder: Path, out: Path) -> None:
    """Copy a sealed bundle to its final place, manifest last: until then, nothing there passes for a bundle."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in [p for p in files if p.name != bundle.MANIFEST]:
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(folder / bundle.MANIFEST, out / f".{bundle.MANIFEST}")
    (out / f".{bundle.MANIFEST}").replace(out / bundle.MANIFEST)


def _write_network(folder: Path, network: Network, fitted: Fitted, input_px: int) -> dict[str, Floats]:
    """Graph, weights and head as files; the head's `weight` (1, channels) and `bias` (1,)."""
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    write_onnx(network, fitted.model, input_px, folder / bundle.MODEL)
    save_file({k: v.contiguous() for k, v in fitted.model.state_dict().items()}, folder / bundle.WEIGHTS)
    linear = linear_head(fitted.model)
    head = {"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}
    save_arrays(head, folder / bundle.HEAD)
    return head


def _score_by_graph(engine: Engine, inputs: "Pixels", head: dict[str, Floats]) -> tuple[Floats, float]:
    logits, gap, views = [], 0.0, inputs.shape[1]
    for images in _flat(inputs):
        logit, features = engine.logits_and_features(images)
        by_head = features.mean(axis=(2, 3)) @ head["weight"][0] + head["bias"][0]
        gap = max(gap, float(np.abs(by_head - logit).max()))
        logits.append(logit.reshape(-1, views).mean(axis=1))
    return np.concatenate(logits), gap


def _flat(inputs: "Pixels") -> "Iterator[Pixels]":
    """Views (n, views, height, width, 3) as batches (images x views, height, width, 3), whole images together."""
    images = max(1, _ENGINE_BATCH // inputs.shape[1])
    for start in range(0, len(inputs), images):
        yield inputs[start : start + images].reshape(-1, *inputs.shape[2:])


def _prove(logits: Floats, head_gap: float, network: Network, fitted: Fitted, validation: Validation) -> float:
    by_torch = score(fitted.model, network, validation.inputs, np.arange(len(logits)), torch.device("cpu"))
    parity = float(np.abs(by_torch - logits).max())
    allowed = PARITY_TOLERANCE * max(1.0, float(np.abs(by_torch).max()))
    for gap, what in ((parity, "the ONNX graph differs from torch"), (head_gap, "the head differs from the graph")):
        if not gap <= allowed:
            raise StageError(f"{what} by {gap:.3g} in the logit on validation images (allowed {allowed:.3g})")
    return parity


def _corrupted_logits(engine: Engine, validation: Validation, config: TrainConfig) -> Floats:
    """Logits of the validation images after the training's augmentation, resized as the server does."""
    from PIL import Image

    if not config.augment.enabled:
        return np.empty(0, dtype=np.float32)
    logits, views = [], validation.native.shape[1]
    for number, images in enumerate(_flat(validation.native)):
        rng = np.random.default_rng([config.seed, number * _ENGINE_BATCH])
        changed = augment(images, rng, config.augment)
        scored = engine.logits(np.stack([to_input(Image.fromarray(c), config.input_px, trim=False) for c in changed]))
        logits.append(scored.reshape(-1, views).mean(axis=1))
    return np.concatenate(logits)


def _domain(validation: Validation, config: TrainConfig) -> TrainedDomain:
    lowest = float(config.augment.jpeg_quality_min) if config.augment.enabled and config.augment.jpeg_p > 0 else None
    sides = [quality.log2_min_side for quality in validation.qualities]
    qualities = [quality.jpeg_quality for quality in validation.qualities if quality.jpeg_quality is not None]
    return trained_domain(sides, qualities, [detail(pixels) for pixels in validation.inputs], lowest)


def _write_golden(
    folder: Path, dataset: Dataset, validation: Validation, logits: Floats, rule: DecisionRule
) -> tuple[GoldenExample, ...]:
    """Per class the surest image and the least sure one outside the rounding margin; one of each verdict given."""
    probabilities = rule.probabilities(logits)
    distance = np.abs(probabilities - rule.threshold)
    chosen: list[int] = []
    for label_id in range(len(LABELS)):
        of_class = np.flatnonzero(validation.labels == label_id)
        order = of_class[np.argsort(distance[of_class], kind="stable")]
        clear = order[distance[order] >= _GOLDEN_MARGIN]
        candidates = clear if len(clear) else order[-1:]
        chosen += sorted({int(candidates[0]), int(candidates[-1])})
    # a smoke test tells inverted labels by examples of both verdicts, which a weak model may give to either class
    called = probabilities >= rule.threshold
    for positive in (False, True):
        of_verdict = np.flatnonzero(called == positive)
        if len(of_verdict) and not (called[chosen] == positive).any():
            chosen.append(int(of_verdict[np.argmax(distance[of_verdict])]))
    rows = [int(validation.rows[at]) for at in chosen]
    files = encoded(dataset, VAL, rows)
    (folder / bundle.GOLDEN).mkdir()
    golden = []
    for at, row in zip(chosen, rows, strict=True):
        fmt = sniff(files[row])
        name = f"{bundle.GOLDEN}/{VAL}_{row:05d}{_SUFFIX[cast('Any', fmt)]}"
        (folder / name).write_bytes(files[row])
        verdict = rule.verdict(float(probabilities[at]))
        golden.append(
            GoldenExample(
                file=name,
                label=LABELS[int(validation.labels[at])],
                prediction=verdict.prediction,
                probability=verdict.probability,
            )
        )
    return tuple(golden)
