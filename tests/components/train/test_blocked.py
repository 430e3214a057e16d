"""The arranged graph is the network, takes what the engine gives it, and costs the engine no change of layout."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from components.train.blocked import ONE_IMAGE_PX, WIDE_BYTES
from components.train.config import TrainConfig
from components.train.graph import write_onnx
from components.train.model import build, features_and_logit, normalise
from serving.detector.engine import Engine
from serving.detector.onnxfile import without_output

IMAGES = 3
BLOCKED = "com.microsoft.nchwc"
"""The domain of the engine's nodes in its blocked layout."""


@dataclass(frozen=True)
class Exported:
    """A network of random weights, its graph, and what it says itself of some random images."""

    graph: Path
    images: np.ndarray
    logits: np.ndarray
    features: np.ndarray


def export(folder: Path, architecture: str, px: int) -> Exported:
    torch.manual_seed(0)
    network = build(TrainConfig(architecture=architecture, weights="none", input_px=px))
    model = network.model.train()
    with torch.no_grad():
        for _ in range(4):
            # batch norms need statistics of something
            model(torch.randn(4, 3, px, px))
        model.eval()
        images = np.random.default_rng(0).integers(0, 256, (IMAGES, px, px, 3), dtype=np.uint8)
        x = normalise(torch.from_numpy(images).permute(0, 3, 1, 2).float(), network)
        features, logits = features_and_logit(model, x)
    path = folder / f"{architecture}_{px}.onnx"
    write_onnx(network, model, px, path)
    onnx.checker.check_model(path, full_check=True)
    return Exported(path, images, logits.numpy(), features.numpy())


@pytest.fixture(scope="module")
def b0(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """EfficientNet-B0 at the size it is served at."""
    return export(tmp_path_factory.mktemp("blocked"), "efficientnet_b0", 224)


def assert_same(exported: Exported, engine: Engine) -> None:
    logits, features = engine.logits_and_features(exported.images)
    np.testing.assert_allclose(logits, exported.logits, atol=1e-4)
    np.testing.assert_allclose(engine.logits(exported.images), logits, atol=1e-6)
    scale = np.abs(exported.features).max()
    np.testing.assert_allclose(features, exported.features, atol=1e-4 * max(1.0, scale))


@pytest.mark.parametrize(
    ("architecture", "px", "batch"),
    [
        pytest.param("semnasnet_075", 224, 1, marks=pytest.mark.system),  # gates behind ReLU, not in every block
        pytest.param("regnety_002", ONE_IMAGE_PX, 1, marks=pytest.mark.system),  # gates behind grouped convolutions
        pytest.param("tf_efficientnet_lite0", 224, "b", marks=pytest.mark.system),  # wide maps, no gates
        pytest.param("efficientnet_b0", 64, "b", marks=pytest.mark.system),  # gates on maps too small to gain
        ("resnet18", 224, "b"),  # wide maps that end in a pooling and in residual sums
    ],
)
def test_any_network_stays_what_it_was(tmp_path: Path, architecture: str, px: int, batch: int | str) -> None:
    exported = export(tmp_path, architecture, px)
    assert ort.InferenceSession(str(exported.graph)).get_inputs()[0].shape == [batch, px, px, 3]
    assert_same(exported, Engine(exported.graph))
    assert_same(exported, Engine(exported.graph, threads=2))


def test_a_batch_is_scored_image_by_image_to_the_last_bit(b0: Exported) -> None:
    engine, side_by_side = Engine(b0.graph), Engine(b0.graph, threads=2)
    assert_same(b0, engine)
    alone = np.concatenate([engine.logits(b0.images[i : i + 1]) for i in range(IMAGES)])
    np.testing.assert_array_equal(engine.logits(b0.images), alone)
    np.testing.assert_array_equal(side_by_side.logits(b0.images), alone)


def test_the_engine_changes_the_layout_of_the_answer_only(b0: Exported, tmp_path: Path) -> None:
    squeezes = _squeezed_channels(onnx.load(b0.graph).graph)
    assert len(squeezes) == 16
    for outputs, answers in ((["logit", "features"], 1), (["logit"], 0)):
        content = b0.graph.read_bytes()
        graph = optimised(content if "features" in outputs else without_output(content, "features"), tmp_path)
        assert [output.name for output in graph.output] == outputs
        block = _block(graph)
        # a convolution takes fewer channels than a block, or a multiple of four: the gates behind others stay outside
        outside = sum(channels >= block and channels % 4 != 0 for channels in squeezes)
        convolutions = [node for node in graph.node if node.op_type == "Conv" and node.domain == BLOCKED]
        assert len(convolutions) > 81 - outside
        assert len(_turned_maps(graph)) == answers + outside, "beside vectors, only a wanted feature map turns"
        assert len([node for node in graph.node if node.op_type == "ReorderInput"]) == outside


def test_a_verdict_does_not_wait_for_the_feature_map(b0: Exported) -> None:
    # no answer shows it, so this looks inside: the session behind `logits` knows no other output
    assert [output.name for output in Engine(b0.graph)._verdict.get_outputs()] == ["logit"]


def test_the_engine_scales_no_pixels(b0: Exported, tmp_path: Path) -> None:
    graph = optimised(b0.graph.read_bytes(), tmp_path)
    stem = next(at for at, node in enumerate(graph.node) if node.op_type == "Conv")
    assert [node.op_type for node in graph.node[:stem]] == ["Cast", "Transpose", "Sub"]


def optimised(model: bytes, folder: Path) -> onnx.GraphProto:
    """The graph as ONNX Runtime runs it on this machine."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


def _block(graph: onnx.GraphProto) -> int:
    """Channels of one block of the layout here (8 on AVX2, 16 on AVX-512): the engine pads weights to whole blocks."""
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    blocked = [node for node in graph.node if node.op_type == "Conv" and node.domain == BLOCKED]
    assert blocked, "this processor has no blocked layout"
    return min(sizes[node.input[1]][0] for node in blocked)


def _squeezed_channels(graph: onnx.GraphProto) -> list[int]:
    """The channels between the two convolutions of each squeeze-and-excitation, as exported."""
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return [sizes[c.input[1]][0] for c in convolutions if made_by.get(c.input[0]) in ("GlobalAveragePool", "Concat")]


def _turned_maps(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """What makes the maps that leave the blocked layout, the vectors of a squeeze-and-excitation apart."""
    made_by = {output: node for node in graph.node for output in node.output}
    turned = [made_by[node.input[0]] for node in graph.node if node.op_type == "ReorderOutput"]
    maps = [node for node in turned if node.op_type not in ("GlobalAveragePool", "Conv")]
    return [node for node in maps if not _of_a_squeeze(made_by, node)]


def _of_a_squeeze(made_by: dict[str, onnx.NodeProto], node: onnx.NodeProto) -> bool:
    """Whether `node` is the activation between the two convolutions of a squeeze-and-excitation."""
    conv = made_by[node.input[0]]
    source = made_by.get(conv.input[0])
    return source is not None and source.op_type in ("GlobalAveragePool", "Concat")


def test_no_map_outgrows_the_cache(b0: Exported) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(b0.graph)).graph
    sizes = {
        value.name: 4 * int(np.prod([d.dim_value for d in value.type.tensor_type.shape.dim]))
        for value in graph.value_info
    }
    largest = max(sizes[node.output[0]] for node in graph.node if node.op_type in ("Conv", "Resize"))
    assert 0 < largest < WIDE_BYTES
    stored = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
    assert stored < 1.02 * 16_000_000, "weights that were cut up are stored once"


@pytest.mark.no_cover
def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    # a small one with gates: what could differ, names and their order, is no matter of size
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        files.append(export(tmp_path / name, "test_efficientnet", 224).graph.read_bytes())
    assert files[0] == files[1]
