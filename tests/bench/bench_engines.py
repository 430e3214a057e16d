"""Engines that could score a trained bundle, one thread each: time, memory, and whose verdicts change.

`python -m tests.bench.bench_engines BUNDLE [--graphs] [--processor avx2] [--quick]`: a bundle trained on the
sample, e.g. the folder that `aidetect run` registered. The answers of ONNX Runtime in float32, which is what is served,
are the reference; beside it stands the graph as PyTorch exports it, which the other engines get, too. INT8 is ONNX
Runtime's QDQ format, calibrated on val by percentiles; OpenVINO runs in an environment of its own. ONNX Runtime has no
bfloat16 convolutions for x86. All engines stand at once and take turns, so that a noisy machine is noisy for all.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serving.detector.bundle import MODEL, Manifest, read_manifest
from serving.detector.conclusion import Policy
from serving.detector.image import decode
from serving.detector.preprocess import Preparation
from tests.bench.environments import python_of
from tests.bench.serving_inputs import plain_graph
from tests.processor import instruction_sets, older_processor

OUT = Path("workspace/bench")
SAMPLE = Path("data/sample")
PROBE = Path(__file__).parent / "peers" / "engine_probe.py"
CALIBRATION = 64
"""Images of val: the calibrator keeps every map of each."""
PERCENTILE = 99.99
QUANTISED: Final = ["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "Clip", "Relu"]
"""Activations too: left out, each would ask for a way back to float32 and another to INT8."""
TURN = 20
"""Images of a turn."""

Images = npt.NDArray[np.uint8]


class _Photos:
    """What ONNX Runtime's calibration reads."""

    def __init__(self, images: Images) -> None:
        self._left: Iterator[Images] = iter(images)

    def get_next(self) -> dict[str, Images] | None:
        """The next image as the graph's input."""
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


@dataclass
class Probe:
    """One engine at work in a process of its own."""

    process: "subprocess.Popen[str]"
    answers: Path
    costs_ms: list[float] = field(default_factory=list)

    def score(self, start: int, stop: int) -> None:
        """One turn."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{start} {stop}\n")
        self.process.stdin.flush()
        self.costs_ms.append(float(self.process.stdout.readline()))

    def end(self) -> dict[str, Any]:
        """Milliseconds an image of every turn, resident MiB, and the logits."""
        told, _ = self.process.communicate(timeout=60)
        return {"ms": self.costs_ms, **json.loads(told), "logits": np.load(self.answers)}


def pixels(split: str, preparation: Preparation, most: int) -> Images:
    """`most` images of a split of the sample, evenly chosen, as the model sees them."""
    import pyarrow.parquet as pq

    column = pq.read_table(SAMPLE / f"{split}.parquet", columns=["image"])["image"]
    rows = np.linspace(0, len(column) - 1, min(most, len(column))).astype(int)
    photos = (decode(column[int(row)].as_py()["bytes"], target_px=preparation.decode_px) for row in rows)
    return np.concatenate([preparation.inputs(photo.rgb) for photo in photos])


def quantised(graph: Path, images: Images, folder: Path) -> dict[str, Path]:
    """The graph in INT8: weights for each channel, activations by percentiles of the calibration images.

    Once with every convolution, and once with what INT8 rounds worst left in float32: depthwise convolutions, whose
    channels share one scale of activations, and the first and the last convolution.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    convolutions = [node for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    groups = [next((int(a.i) for a in node.attribute if a.name == "group"), 1) for node in convolutions]
    fragile = {convolutions[0].name, convolutions[-1].name}
    fragile |= {node.name for node, group in zip(convolutions, groups, strict=True) if group > 1}
    made = {}
    for name, left_out in (("INT8 QDQ", set()), ("INT8 QDQ, without depthwise, first and last", fragile)):
        made[name] = folder / f"int8-{len(left_out)}.onnx"
        quantization.quantize_static(
            str(prepared),
            str(made[name]),
            _Photos(images),
            quant_format=quantization.QuantFormat.QDQ,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=sorted(left_out),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"CalibPercentile": PERCENTILE},
        )
    return made


def measured(
    engines: Mapping[str, tuple[Path, str, Path]], images: Path, folder: Path, environment: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What each engine answers and costs, in turns over all images."""
    probes = {}
    for number, (name, (python, engine, graph)) in enumerate(engines.items()):
        answers = folder / f"answers-{number}.npy"
        command = [str(python), str(PROBE), engine, str(graph), str(images), str(answers)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )
        probes[name] = Probe(process, answers)
    count = len(np.load(images, mmap_mode="r"))
    for start in range(0, count, TURN):
        for probe in probes.values():
            probe.score(start, min(start + TURN, count))
    return {name: probe.end() for name, probe in probes.items()}


def table(found: Mapping[str, dict[str, Any]], manifest: Manifest, processor: str) -> str:
    """The figures as Markdown; the first engine is the reference."""
    rule, served = manifest.decision, next(iter(found.values()))
    bands = Policy().bands(rule, manifest.bands)
    verdicts = {name: [rule.decide(float(z)) for z in one["logits"]] for name, one in found.items()}
    chances = {name: np.array([verdict.probability for verdict in of]) for name, of in verdicts.items()}
    decisions = {name: np.digitize(of, [bands.real_below, bands.ai_from]) for name, of in chances.items()}
    (first, reference), *_ = verdicts.items()
    text = io.StringIO()
    print(
        f"{datetime.now(UTC).date().isoformat()}, one thread, {processor}, {manifest.architecture} at "
        f"{manifest.input_px} px, {len(reference)} test images.\n\n"
        "| engine | CPU ms an image | as fast as what is served | MiB | verdicts that change | decisions that change "
        "| change of P, median / 99 % / most | to be asked again for no change |\n|---|---|---|---|---|---|---|---|",
        file=text,
    )
    for name, one in found.items():
        gaps = np.abs(chances[name] - chances[first])
        flips = sum(a.prediction != b.prediction for a, b in zip(verdicts[name], reference, strict=True))
        middle, far, most = np.quantile(gaps, [0.5, 0.99, 1.0]).tolist()
        speed = statistics.median(s / o for s, o in zip(served["ms"], one["ms"], strict=True))
        near = float((np.abs(chances[name] - rule.threshold) <= most).mean())
        print(
            f"| {name} | {statistics.median(one['ms']):.2f} | {speed:.2f}x | {one['mib']:.0f} | {flips} "
            f"| {int((decisions[name] != decisions[first]).sum())} | {middle:.1e} / {far:.1e} / {most:.1e} "
            f"| {near:.1%} |",
            file=text,
        )
    return text.getvalue()


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle trained on the sample, of the whole photo")
    parser.add_argument("--graphs", action="store_true", help="the two graphs of what is served, and no other engine")
    parser.add_argument("--processor", choices=["avx512", "avx2"], help="the newest instructions that engines may use")
    parser.add_argument("--quick", action="store_true", help="200 images instead of all of the test split")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    manifest, graph = read_manifest(options.bundle), options.bundle / MODEL
    if manifest.preparation.views != 1:
        parser.error(f"{options.bundle}: engines are compared on models of the whole photo")
    own = Path(sys.executable)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        environment: Mapping[str, str] | None = dict(os.environ)
        if options.processor:
            environment = older_processor(options.processor, folder)
        if environment is None:
            parser.error("this processor or kernel cannot hide what CPUID says")
        images = folder / "test.npy"
        np.save(images, pixels("test", manifest.preparation, 200 if options.quick else 10**6))
        plain = plain_graph(options.bundle, folder / "plain.onnx")
        engines = {
            "ONNX Runtime f32, blocked graph (served)": (own, "onnxruntime", graph),
            "the graph as exported": (own, "onnxruntime", plain),
        }
        if not options.graphs:
            theirs = python_of("openvino")
            calibration = pixels("val", manifest.preparation, CALIBRATION)
            engines |= {name: (own, "onnxruntime", at) for name, at in quantised(plain, calibration, folder).items()}
            engines |= {f"OpenVINO {kind}": (theirs, f"openvino-{kind}", plain) for kind in ("f32", "bf16")}
        found = measured(engines, images, folder, environment)
    processor = f"as if of {options.processor}" if options.processor else ", ".join(instruction_sets())
    text = table(found, manifest, processor)
    (OUT / "engines.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
