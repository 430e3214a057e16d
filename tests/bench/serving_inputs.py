"""What the serving benchmarks run on: an EfficientNet's bundle, and JPEGs of three sizes, made here and kept."""

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from serving.detector.bundle import GoldenExample
    from serving.detector.decision import DecisionRule
    from serving.detector.preprocess import Preparation

SIZES = {"224": (224, 224), "1024": (1024, 1024), "12MP": (4000, 3000)}
"""Name -> width and height in pixels."""
INPUT_PX = 224


def photographs(folder: Path) -> dict[str, Path]:
    """A JPEG of each size: a mosaic of small photographs, enlarged, with sensor noise, quality 90."""
    import pyarrow.parquet as pq

    table = pq.read_table("tests/sample64/test.parquet", columns=["image"]).slice(0, 64)
    tiles = [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in table["image"].to_pylist()]
    rng = np.random.default_rng(0)
    found = {}
    for name, (width, height) in SIZES.items():
        found[name] = folder / f"{name}.jpg"
        if found[name].exists():
            continue
        side = max(width, height) // 4
        picture = Image.new("RGB", (width, height))
        for index in range(16):
            tile = tiles[index].resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(tile, (index % 4 * side, index // 4 * side))
        pixels = np.asarray(picture).astype(np.int16) + rng.normal(0, 3, (height, width, 3)).astype(np.int16)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(found[name], "JPEG", quality=90)
    return found


def sample_photograph(folder: Path) -> Path:
    """The first JPEG of the shipped sample's test split, as a file."""
    import pyarrow.parquet as pq

    rows = pq.read_table("data/sample/test.parquet", columns=["image"])["image"]
    path = folder / "sample.jpg"
    path.write_bytes(next(data for row in rows if (data := row.as_py()["bytes"])[:2] == b"\xff\xd8"))
    return path


def efficientnet_bundle(
    folder: Path, photograph: Path, crops: int = 0, architecture: str = "efficientnet_b0", input_px: int = INPUT_PX
) -> Path:
    """A sealed bundle of an EfficientNet with random weights: every cost of the real one, none of its sense.

    `crops`: of native views; 0: the whole photo.
    """
    import torch
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    from components.train.config import TrainConfig
    from components.train.graph import write_onnx
    from components.train.model import build, linear_head
    from serving.detector import bundle
    from serving.detector.decision import DecisionRule
    from serving.detector.preprocess import Preparation
    from tests.bundles import provenance

    # made anew each time: what the export does to a graph is part of what is measured
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = TrainConfig(architecture=architecture, weights="none", input_px=input_px)
    network = build(config)
    model = network.model
    # statistics of real activations: without them they shrink to denormal numbers, which no trained network has
    model.train()
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(8, 3, input_px, input_px))
    model.eval()
    write_onnx(network, model, input_px, folder / bundle.MODEL)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / bundle.WEIGHTS)
    linear = linear_head(model)
    save_arrays({"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}, folder / bundle.HEAD)
    (folder / bundle.MODEL_CARD).write_text("# Random weights\n\nFor benchmarks; its verdicts mean nothing.\n")

    preparation, rule = Preparation(input_px, crops=crops), DecisionRule()
    bundle.seal(
        folder,
        name="bench",
        architecture=architecture,
        input_px=input_px,
        preprocessing=preparation.recipe,
        decision=rule,
        golden=_examples(folder, photograph, preparation, rule),
        provenance=provenance("bench"),
    )
    return folder


def _examples(
    folder: Path, photograph: Path, preparation: "Preparation", rule: "DecisionRule"
) -> "tuple[GoldenExample, ...]":
    """The photograph, and the same upside down, beside the graph in `folder`; and the reference of their two scores."""
    from serving.detector import bundle
    from serving.detector.engine import Engine
    from serving.detector.image import decode
    from serving.detector.statistics import InputQuality, build_reference
    from tests.bundles import golden_example

    engine = Engine(folder / bundle.MODEL)
    (folder / bundle.GOLDEN).mkdir(exist_ok=True)
    golden, logits, qualities = [], [], []
    for index in range(2):
        name = f"{bundle.GOLDEN}/{index}.jpg"
        with Image.open(photograph) as picture:
            picture.rotate(180 * index).save(folder / name, quality=90)
        decoded = decode((folder / name).read_bytes())
        logits.append(float(engine.logits(preparation.inputs(decoded.rgb)).mean()))
        qualities.append(InputQuality.of(decoded.info))
        golden.append(golden_example(name, rule, logits[-1]))
    reference = build_reference(np.array(logits, dtype=np.float32), rule, qualities)
    (folder / bundle.REFERENCE).write_text(reference.model_dump_json())
    return tuple(golden)


def plain_graph(bundle: Path, path: Path) -> Path:
    """The bundle's network as a tutorial exports it: batches of any size, and not arranged for ONNX Runtime."""
    from unittest.mock import patch

    from safetensors.torch import load_file

    from components.train.config import TrainConfig
    from components.train.graph import write_onnx
    from components.train.model import build
    from serving.detector.bundle import WEIGHTS, read_manifest

    manifest = read_manifest(bundle)
    network = build(TrainConfig(architecture=manifest.architecture, weights="none", input_px=manifest.input_px))
    network.model.load_state_dict(load_file(bundle / WEIGHTS))
    with patch("components.train.blocked.block"):
        write_onnx(network, network.model.eval(), manifest.input_px, path)
    return path
