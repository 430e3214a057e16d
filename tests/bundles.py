"""Real bundles of tiny networks, made in milliseconds: same files, same loader, same engine as a trained one."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from serving.detector import bundle
from serving.detector.bundle import GoldenExample, Provenance
from serving.detector.decision import DecisionRule
from serving.detector.engine import Engine
from serving.detector.image import decode
from serving.detector.preprocess import Preparation
from serving.detector.statistics import InputQuality, build_reference

CHANNELS = 8


def jpeg(level: int, size: tuple[int, int] = (64, 64), quality: int = 90, seed: int = 0) -> bytes:
    """A noisy JPEG around grey `level` (0-255); its brightness decides the toy verdict."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(level + rng.normal(0, 12, (*size[::-1], 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def golden_example(name: str, rule: DecisionRule, logit: float) -> GoldenExample:
    """An image in a bundle whose label is what the model says of it."""
    verdict = rule.decide(logit)
    return GoldenExample(
        file=name, label=verdict.prediction, prediction=verdict.prediction, probability=verdict.probability
    )


def provenance(run_id: str, seed: int = 0) -> Provenance:
    """Of a bundle that no training made."""
    return Provenance(
        run_id=run_id,
        git_sha="0" * 40,
        data_fingerprint="0" * 64,
        created_at="2026-01-01T00:00:00+00:00",
        seed=seed,
        train_config={},
        libraries={},
    )


def make_bundle(
    folder: Path,
    *,
    sign: float = 1.0,
    input_px: int = 32,
    scale: float = 6.0,
    seed: int = 0,
    batch: int | str = "b",
    crops: int = 0,
    **fields: Any,
) -> Path:
    """Write a sealed bundle whose logit grows (or, with sign -1, falls) with the picture's brightness.

    `batch` 1 makes a graph that takes one image a call, as training exports networks with gates; `crops` a model of
    native views. `fields` are further ones of the manifest; without any the bundle is like those made before there
    were decisions.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    # each channel averages an 8x8 patch with its own positive weights, so the map keeps where the light is
    kernel = rng.uniform(0.5, 1.5, (CHANNELS, 3, 8, 8)).astype(np.float32)
    kernel /= kernel.sum(axis=(1, 2, 3), keepdims=True)
    weight = (sign * scale / CHANNELS * rng.uniform(0.8, 1.2, (1, CHANNELS))).astype(np.float32)
    # the map is the brightness in 0..1 and so never negative: the bias centres the logit at mid grey
    bias = np.array([-0.5 * float(weight.sum())], dtype=np.float32)
    onnx.save(_graph(input_px, kernel, weight, bias, batch), folder / bundle.MODEL)
    save_file({"weight": weight, "bias": bias}, folder / bundle.HEAD)
    save_file({"kernel": kernel, "weight": weight, "bias": bias}, folder / bundle.WEIGHTS)
    (folder / bundle.MODEL_CARD).write_text("# Toy model\n\nCalls bright pictures ai_generated. For tests.\n")

    rule = DecisionRule(temperature=1.2, bias=0.05)
    engine = Engine(folder / bundle.MODEL)
    files = [jpeg(level, quality=80 + level % 15, seed=level) for level in range(20, 236, 4)]
    decoded = [decode(data) for data in files]
    preparation = Preparation(input_px, crops=crops)
    logits = np.array([engine.logits(preparation.inputs(d.rgb)).mean() for d in decoded], dtype=np.float32)
    reference = build_reference(logits, rule, [InputQuality.of(d.info) for d in decoded])
    (folder / bundle.REFERENCE).write_text(reference.model_dump_json())

    golden = []
    (folder / bundle.GOLDEN).mkdir()
    for index in (2, 5, len(files) - 6, len(files) - 3):
        name = f"{bundle.GOLDEN}/{index:04d}.jpg"
        (folder / name).write_bytes(files[index])
        golden.append(golden_example(name, rule, float(logits[index])))
    bundle.seal(
        folder,
        name="ai-product-photo-detector",
        architecture="toy",
        input_px=input_px,
        preprocessing=preparation.recipe,
        decision=rule,
        golden=tuple(golden),
        provenance=provenance("toy", seed),
        **fields,
    )
    return folder


def _graph(
    input_px: int, kernel: np.ndarray, weight: np.ndarray, bias: np.ndarray, batch: int | str
) -> onnx.ModelProto:
    constants = {"scale": np.float32(1 / 255), "kernel": kernel, "weight": weight.T.copy(), "bias": bias}
    side = input_px // 8
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["chw", "kernel"], ["features"], strides=[8, 8]),
        helper.make_node("ReduceMean", ["features"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["pooled", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, input_px, input_px, 3])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, [batch]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, CHANNELS, side, side]),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
        + [numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
