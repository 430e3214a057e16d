"""What an explanation costs beside a prediction, by every way to ask for one, on the same server in turns.

`python -m tests.bench.bench_explain [--quick]` prints the table as Markdown, for EfficientNet-B0 at 224 px and for a
network of the kind that `make run` trains, each with a photo of its size. Weights are random, which costs the same.
"""

import argparse
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.config import load_config
from serving.served import SETTLE_AFTER_S
from tests.bench.serving_inputs import INPUT_PX, efficientnet_bundle, photographs, sample_photograph
from tests.bench.serving_limit import Limit
from tests.bench.serving_load import measure
from tests.processor import instruction_sets
from tests.serving.processes import Server, serve

OUT = Path("workspace/bench")
WAYS = {
    "png": ("/predict/explain",),
    "jpeg": ("/predict/explain", "--accept", "application/json, image/jpeg"),
    "grid": ("/predict/explain?overlay=false",),
}


def explanations(server: Server, limit: Limit, image: Path, quick: bool) -> dict[str, Any]:
    """CPU ms a request of each way, and its ratio to that of `/predict`: medians of rounds in which all take turns."""
    errors = measure(server, "/predict/explain", image, "--requests", "1")["errors"]
    costs: dict[str, list[float]] = {way: [] for way in ("predict", *WAYS)}
    ratios: dict[str, list[float]] = {way: [] for way in (*WAYS, "without_overlay")}
    overlays = []
    rounds, each = (2, "10") if quick else (16, "20")
    for _ in range(rounds):
        predict = measure(server, "/predict", image, "--requests", each)
        errors += predict["errors"]
        costs["predict"].append(predict["cpu_ms"])
        for way, (path, *options) in WAYS.items():
            explained = measure(server, path, image, "--requests", each, *options)
            errors += explained["errors"]
            costs[way].append(explained["cpu_ms"])
            ratios[way].append(explained["cpu_ms"] / predict["cpu_ms"])
        overlays.append(limit.overlay_ms(image, 5))
        ratios["without_overlay"].append((costs["png"][-1] - overlays[-1]) / predict["cpu_ms"])
    return {
        "cpu_ms": {way: statistics.median(found) for way, found in costs.items()},
        "overlay_cpu_ms": statistics.median(overlays),
        "ratio": {way: statistics.median(found) for way, found in ratios.items()},
        "rss_mib_after": server.rss_mib(),
        "errors": errors,
    }


def of_the_sample(folder: Path, quick: bool) -> dict[str, Any]:
    """The same of a network of the kind that `make run` trains, on a photo of the sample."""
    config, image = load_config("sample").train, sample_photograph(folder)
    bundle = efficientnet_bundle(
        folder / "of_sample", image, architecture=config.architecture, input_px=config.input_px
    )
    return _alone(bundle, image, folder, quick)


def _alone(bundle: Path, image: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """`explanations` of a server that nothing else is asked of."""
    limit = Limit(bundle)
    with serve(bundle, folder / "explain.log", SLOTS="1") as server:
        # it tidies its memory once, a moment after its start
        time.sleep(SETTLE_AFTER_S + 1.0)
        found = explanations(server, limit, image, quick)
    limit.close()
    return found


def main() -> None:
    """Measure and print; exit 1 if an answer was not 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few requests: shows that it works")
    quick = parser.parse_args().quick
    OUT.mkdir(parents=True, exist_ok=True)
    image, config = photographs(OUT)["224"], load_config("sample").train
    found = {
        f"EfficientNet-B0 at {INPUT_PX} px": _alone(efficientnet_bundle(OUT / "explained", image), image, OUT, quick),
        f"`{config.architecture}` at {config.input_px} px, as `make run` trains it": of_the_sample(OUT, quick),
    }
    print(f"{datetime.now(UTC).date().isoformat()}, one slot, {', '.join(instruction_sets())}.\n")
    print(
        "| model | `/predict`, CPU ms | PNG | JPEG | grid alone | the drawing alone, CPU ms |\n"
        "|---|---|---|---|---|---|"
    )
    for name, one in found.items():
        ways = " | ".join(f"{one['cpu_ms'][way]:.1f} ({one['ratio'][way]:.2f}x)" for way in WAYS)
        print(f"| {name} | {one['cpu_ms']['predict']:.1f} | {ways} | {one['overlay_cpu_ms']:.1f} |")
    if errors := sum(one["errors"] for one in found.values()):
        sys.exit(f"{errors} answers were not 200; the figures above do not count")


if __name__ == "__main__":
    main()
