"""Processor time of the evidence beside a score, and of a model of native views beside one of the whole photo.

`python -m tests.bench.bench_evidence [--quick]`. The medians are of single calls, timed by the thread's own clock; the
two models are one EfficientNet-B0 and take turns.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serving.detector.detector import Detector
from serving.detector.domain import TrainedDomain, measure
from serving.detector.image import decode
from serving.detector.preprocess import to_input
from serving.provenance.credentials import Verifier
from serving.provenance.inspect import inspect
from tests.bench.serving_inputs import INPUT_PX, SIZES, efficientnet_bundle, photographs

OUT = Path("workspace/bench")
CROPS = (1, 4, 9)
DOMAIN = TrainedDomain(min_side_px=(100, 4000), detail=(0.3, 0.9), jpeg_quality=40)


def files(folder: Path) -> dict[str, bytes]:
    """What people send: silent photos of three sizes, one with a camera's metadata, one with a generator's."""
    found = {name: path.read_bytes() for name, path in photographs(folder).items()}
    photo = Image.open(io.BytesIO(found["1024"]))
    exif = Image.Exif()
    exif[271], exif[272], exif[305] = "Maker", "Model 1", "Firmware 2.0"
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=90, exif=exif, xmp=b"<x:xmpmeta>" + b" " * 4000 + b"</x:xmpmeta>")
    found["1024, camera"] = buffer.getvalue()
    text, buffer = PngInfo(), io.BytesIO()
    text.add_text("parameters", "a shoe " * 200 + "\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1", zip=True)
    photo.save(buffer, "PNG", pnginfo=text)
    found["1024, generator"] = buffer.getvalue()
    return found


def cpu_ms(work: Callable[[], object], runs: int) -> float:
    """Median processor time of a call, in milliseconds, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        started = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - started) / 1e6)
    return statistics.median(times)


def tell(what: str, ms: float, target_ms: float) -> None:
    """One line of the table."""
    print(f"{what:<44} {ms:8.3f} ms  target {target_ms:g} ms  {'met' if ms <= target_ms else 'MISSED'}", flush=True)


def main() -> None:
    """Measure and print; a missed target is printed, not an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls: shows that it works")
    runs = 20 if parser.parse_args().quick else 200
    OUT.mkdir(parents=True, exist_ok=True)
    sent, verifier = files(OUT), Verifier()
    for name, data in sent.items():
        tell(f"container scan, {name}", cpu_ms(partial(inspect, data), runs), 0.3)
    silent = max(cpu_ms(partial(inspect, sent[name], verifier), runs) for name in SIZES)
    tell(f"C2PA absent, library {'there' if verifier.installed else 'NOT INSTALLED'}", silent, 1.0)
    for name in SIZES:
        decoded = decode(sent[name], target_px=INPUT_PX)
        pixels = to_input(decoded.rgb, INPUT_PX)[None]
        tell(f"domain signals, {name}", cpu_ms(partial(measure, DOMAIN, decoded.info, pixels), runs), 0.3)
    native_views(sent, max(3, runs // 10))


def native_views(sent: dict[str, bytes], runs: int) -> None:
    """Cost of `train.views: native` an image, beside the whole photo's."""
    photo = OUT / "224.jpg"
    models = {crops: Detector.load(efficientnet_bundle(OUT / f"views-{crops}", photo, crops)) for crops in (0, *CROPS)}
    for name in SIZES:
        cost = {crops: cpu_ms(partial(model.judge, sent[name]), runs) for crops, model in models.items()}
        told = ", ".join(f"{crops} crops {cost[crops]:.1f} ms ({cost[crops] / cost[0]:.2f}x)" for crops in CROPS)
        print(f"a verdict, {name}: whole {cost[0]:.1f} ms, {told}", flush=True)


if __name__ == "__main__":
    main()
