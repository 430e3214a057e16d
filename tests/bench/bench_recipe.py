"""What the training's augmentation buys: the shipped recipe against the plain one, on every corruption of the grid.

`python -m tests.bench.bench_recipe` trains the profile `sample` twice, with and without augmentation, otherwise alike,
and evaluates the one with the other as champion: the report has both, cell by cell, with the paired 95 % interval of
the difference over all test images. Two whole trainings long.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

OUT = Path("workspace/bench/recipe")
SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
PLAIN = ("train.augment.enabled=false",)


def aidetect(*words: str) -> None:
    """One command of the project; a failure ends the benchmark with its message."""
    subprocess.run([Path(sys.executable).with_name("aidetect"), *words], check=True, stdout=subprocess.DEVNULL)


def train(name: str, seed: int, *overrides: str) -> Path:
    """The bundle of one training on the packed sample."""
    knobs = ["train.checkpoint_dir=", f"train.seed={seed}", *overrides]
    sets = [word for knob in knobs for word in ("--set", knob)]
    bundle = OUT / name
    aidetect("train", "--dataset", str(OUT / "dataset"), "-o", str(bundle), "--curves", f"{bundle}.html", *sets)
    return bundle


def main() -> None:
    """Train twice, evaluate, print the cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one epoch of few images: shows that it works")
    options = parser.parse_args()
    quick = ("train.epochs=1", "train.limit=256", "train.input_px=64") if options.quick else ()
    shutil.rmtree(OUT, ignore_errors=True)
    aidetect("data", "import", str(SAMPLE), "-o", str(OUT / "dataset"))
    plain, recipe = train("plain", options.seed, *PLAIN, *quick), train("augmented", options.seed, *quick)
    images = "60" if options.quick else "0"
    knobs = [f"evaluate.robustness_images={images}"]
    knobs += ["evaluate.bootstrap_draws=200", "evaluate.paired_draws=200"] if options.quick else []
    words = ["--bundle", str(recipe), "--champion", str(plain), *(word for knob in knobs for word in ("--set", knob))]
    aidetect("evaluate", "--dataset", str(OUT / "dataset"), "-o", str(OUT / "evaluation"), *words)
    _print(json.loads((OUT / "evaluation/evaluation.json").read_text()))


def _print(found: dict[str, Any]) -> None:
    clean, champion = found["test"]["metrics"]["accuracy"]["value"], found["champion"]
    print(
        f"accuracy on {found['robustness'][0]['n']:,} test images; difference with its paired 95 % interval, in points"
    )
    print(f"{'':<22} {'augmented':>9} {'plain':>7}  difference")
    rows = [("clean", clean, champion["champion"]["metrics"]["accuracy"], champion["accuracy_difference"])]
    rows += [
        (f"{c['corruption']} {c['level']}", c["accuracy"]["value"], c["champion_accuracy"], c["champion_difference"])
        for c in found["robustness"]
    ]
    for name, augmented, plain, difference in rows:
        low, value, high = (100 * difference[key] for key in ("low", "value", "high"))
        print(f"{name:<22} {augmented:9.1%} {plain['value']:7.1%}  {value:+5.1f} [{low:+.1f}, {high:+.1f}]")
    lost = next(c for c in found["robustness"] if (c["corruption"], c["level"]) == ("jpeg", "q50"))["accuracy_change"]
    print(f"the augmented recipe loses {-100 * lost['value']:.1f} points at JPEG q50 (goal: 3 at most)")
    print(f"report: {OUT / 'evaluation' / 'report.html'}")


if __name__ == "__main__":
    main()
