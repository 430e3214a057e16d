"""Engines that could score a trained bundle, one thread each: time, memory, and whose verdicts change.

`python -m tests.bench.bench_engines BUNDLE [--quick]`: a bundle trained on the sample, e.g. the folder that
`aidetect run` registered. The answers of ONNX Runtime in float32, which is what is served, are the reference. INT8 is
ONNX Runtime's QDQ format, calibrated on val by percentiles; OpenVINO runs in an environment of its own. ONNX Runtime
has no bfloat16 convolutions for x86.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.detector.bundle import MODEL, read_manifest
from serving.detector.image import decode
from serving.detector.preprocess import to_input
from tests.bench.environments import python_of
from tests.processor import instruction_sets

OUT = Path("workspace/bench")
SAMPLE = Path("data/sample")
PROBE = Path(__file__).parent / "peers" / "engine_probe.py"
CALIBRATION = 64
"""Images of val: the calibrator keeps every map of each."""
PERCENTILE = 99.99


class _Photos:
    """What ONNX Runtime's calibration reads."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._left: Iterator[npt.NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """The next image as the graph's input."""
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def pixels(split: str, px: int, most: int) -> npt.NDArray[np.uint8]:
    """`most` images of a split of the sample, evenly chosen, as the model sees them."""
    import pyarrow.parquet as pq

    column = pq.read_table(SAMPLE / f"{split}.parquet", columns=["image"])["image"]
    rows = np.linspace(0, len(column) - 1, min(most, len(column))).astype(int)
    return np.stack([to_input(decode(column[int(row)].as_py()["bytes"], target_px=px).rgb, px) for row in rows])


def quantised(graph: Path, images: npt.NDArray[np.uint8], folder: Path) -> Path:
    """The graph in INT8: weights for each channel, activations by percentiles of the calibration images."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, path = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(path),
        _Photos(images),
        quant_format=quantization.QuantFormat.QDQ,
        calibrate_method=quantization.CalibrationMethod.Percentile,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool"],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"CalibPercentile": PERCENTILE},
    )
    return path


def probe(python: Path, engine: str, graph: Path, images: Path, folder: Path) -> dict[str, Any]:
    """What an engine answers and costs, measured in a process of its own."""
    answers = folder / "answers.npy"
    command = [str(python), str(PROBE), engine, str(graph), str(images), str(answers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    return {**json.loads(done.stdout), "logits": np.load(answers)}


def main() -> None:
    """Measure every engine in turn, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle trained on the sample")
    parser.add_argument("--quick", action="store_true", help="200 images instead of all of the test split")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    manifest, graph = read_manifest(options.bundle), options.bundle / MODEL
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        images = folder / "test.npy"
        np.save(images, pixels("test", manifest.input_px, 200 if options.quick else 10**6))
        own, theirs = Path(sys.executable), python_of("openvino")
        smaller = quantised(graph, pixels("val", manifest.input_px, CALIBRATION), folder)
        engines = {
            "ONNX Runtime f32 (served)": (own, "onnxruntime", graph),
            "ONNX Runtime INT8 QDQ": (own, "onnxruntime", smaller),
            "OpenVINO f32": (theirs, "openvino-f32", graph),
            "OpenVINO bf16": (theirs, "openvino-bf16", graph),
        }
        found = {name: probe(python, engine, at, images, folder) for name, (python, engine, at) in engines.items()}
    first = next(iter(found.values()))
    rule = manifest.decision
    verdicts = {name: [rule.decide(float(z)) for z in one["logits"]] for name, one in found.items()}
    served = next(iter(verdicts.values()))
    text = io.StringIO()
    print(
        f"{datetime.now(UTC).date().isoformat()}, one thread, {', '.join(instruction_sets())}, {manifest.architecture} "
        f"at {manifest.input_px} px, {len(served)} test images.\n\n"
        "| engine | CPU ms an image | against f32 | MiB | verdicts that change | change of P, median / 99 % / "
        "most |\n|---|---|---|---|---|---|",
        file=text,
    )
    for name, one in found.items():
        gaps = np.abs([a.probability - b.probability for a, b in zip(verdicts[name], served, strict=True)])
        flips = sum(a.prediction != b.prediction for a, b in zip(verdicts[name], served, strict=True))
        middle, far, most = np.quantile(gaps, [0.5, 0.99, 1.0]).tolist()
        print(
            f"| {name} | {one['ms']:.2f} | {first['ms'] / one['ms']:.2f}x | {one['mib']:.0f} | {flips} "
            f"| {middle:.1e} / {far:.1e} / {most:.1e} |",
            file=text,
        )
    (OUT / "engines.md").write_text(text.getvalue())
    print(text.getvalue())


if __name__ == "__main__":
    main()
