"""What looking at framing buys: the shipped recipe beside the one of before, on every framing cell of the grid.

`python -m tests.bench.bench_framing [--seeds N]` trains the profile `sample` twice a seed. *Before* trims no borders,
neither in training nor when it judges, and turns, crops, repeats and frames no training photo; *after* is the profile
as it is. Both are judged on the whole test split, clean and in each framing cell of the profile's robustness grid.
Intervals are those of the evaluation: paired on the same images, resampled by source photograph; seeds are read
together, all verdicts on one photograph's images as one unit. Some minutes a training; `--quick` shows on few images
of `tests/sample64` that it works, `--keep` judges again what an earlier call trained and trains only what lacks.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from components.artifacts.dataset import TEST, Dataset
from components.artifacts.evaluation import Metric
from components.evaluate import robustness
from components.evaluate.compare import paired_accuracy
from components.evaluate.config import EvaluateConfig
from components.evaluate.intervals import proportion
from components.evaluate.metrics import Judged
from components.evaluate.robustness import Corruption
from components.evaluate.scoring import Plan, score_split
from components.evaluate.slices import Frame
from pipelines.config import load_config
from serving.detector.bundle import MANIFEST
from serving.detector.detector import Detector
from tests.processor import instruction_sets

OUT: Final = Path("workspace/bench")
TESTS: Final = Path(__file__).resolve().parents[1]
FRAMING: Final = ("canvas", "letterbox", "collage", "turn", "crop")
BEFORE: Final = tuple(f"train.augment.{way}_p=0" for way in ("turn", "crop", "collage", "canvas"))
GOALS: Final = {"clean": 0.5, "canvas": 2.0, "letterbox": 2.0, "turn": 5.0}
"""Points that may be lost: clean against the model of before, in a cell against the same model clean."""
QUICK: Final = {
    "train.epochs": "1",
    "train.limit": "128",
    "train.input_px": "64",
    "train.architecture": "test_efficientnet",
    "train.weights": "none",
}
ARMS: Final = ("before", "after")
Cell = Corruption | None
"""None: clean."""


@dataclass(frozen=True)
class Row:
    """One line of the table; differences are paired and positive where framing helps, losses where photos are lost."""

    cell: str
    accuracy: dict[str, Metric]
    lost: dict[str, Metric]
    """Accuracy of the same model clean minus that in the cell; empty for the clean line."""
    difference: Metric
    """After minus before."""
    goal_points: float | None
    """Points that may be lost; None: no goal is set."""

    @property
    def lost_points(self) -> float:
        """What the goal is held against."""
        return 100 * (self.lost["after"].value if self.lost else -self.difference.value)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        told = {
            name: {arm: one.model_dump() for arm, one in getattr(self, name).items()} for name in ("accuracy", "lost")
        }
        return {
            "cell": self.cell,
            **told,
            "difference": self.difference.model_dump(),
            "goal_points": self.goal_points,
            "met": None if self.goal_points is None else self.lost_points <= self.goal_points,
        }


def aidetect(*words: str, trims: bool = True) -> None:
    """One command of the project; a failure ends the benchmark with its message."""
    program = [Path(sys.executable).with_name("aidetect")] if trims else [sys.executable, "-m", "tests.bench.untrimmed"]
    subprocess.run([*program, *words], check=True, stdout=subprocess.DEVNULL)


def train(bundle: Path, dataset: Path, seed: int, knobs: dict[str, str], before: bool) -> None:
    """One training of the profile `sample`, unless its bundle is there."""
    if (bundle / MANIFEST).exists():
        return
    sets = ["train.checkpoint_dir=", f"train.seed={seed}", *(f"{key}={value}" for key, value in knobs.items())]
    sets += BEFORE if before else ()
    words = ["--profile", "sample", *(word for knob in sets for word in ("--set", knob))]
    aidetect("train", "--dataset", str(dataset), "-o", str(bundle), *words, trims=not before)


def grid(config: EvaluateConfig) -> list[Cell]:
    """Clean and the framing cells of the profile's robustness grid."""
    return [None, *(cell for cell in robustness.grid(config) if cell.name in FRAMING)]


def judge(dataset: Path, bundles: dict[str, Path], config: EvaluateConfig) -> Iterator[tuple[Cell, dict[str, Judged]]]:
    """Verdicts of both models on the whole test split, cell by cell."""
    data = Dataset(dataset)
    frame = Frame.read(data, TEST)
    detectors = {arm: Detector.load(bundle) for arm, bundle in bundles.items()}
    cells = grid(config)
    corruptions = [cell for cell in cells if cell is not None]
    plan = Plan(list(detectors.values()), corruptions, robustness.subsample(frame.positive, config))
    found = score_split(data, frame, plan, config)
    for cell in cells:
        logits = found.clean if cell is None else found.corrupted[:, corruptions.index(cell)]
        yield (
            cell,
            {
                arm: Judged.of(frame.positive, of_model, detector.rule, frame.units)
                for (arm, detector), of_model in zip(detectors.items(), logits, strict=True)
            },
        )


def table(judged: dict[Cell, dict[str, Judged]], config: EvaluateConfig) -> list[Row]:
    """Figures of every cell."""
    rows = []
    for cell, arms in judged.items():
        accuracy = {arm: proportion(one.right, one.units) for arm, one in arms.items()}
        rows.append(
            Row(
                cell="clean" if cell is None else f"{cell.name} {cell.label}",
                accuracy={arm: share for arm, share in accuracy.items() if share is not None},
                lost={} if cell is None else {a: paired_accuracy(judged[None][a], arms[a], config) for a in ARMS},
                difference=paired_accuracy(arms["after"], arms["before"], config),
                goal_points=GOALS.get("clean" if cell is None else cell.name),
            )
        )
    return rows


def markdown(rows: list[Row], images: int, photographs: int, seeds: list[int]) -> str:
    """The table as docs take it."""
    lines = [
        f"{datetime.now(UTC).date().isoformat()}, {', '.join(instruction_sets())}; {images:,} test images of "
        f"{photographs:,} photographs, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; points with "
        "95 % intervals, paired and resampled by photograph.",
        "",
        "| test images | before | after | after less before | before loses | after loses | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lost = [_points(row.lost[arm]) if row.lost else "" for arm in ARMS]
        goal = ""
        if row.goal_points is not None:
            goal = f"{row.goal_points:g}: {'met' if row.lost_points <= row.goal_points else 'MISSED'}"
        shares = [f"{100 * row.accuracy[arm].value:.1f} %" for arm in ARMS]
        lines.append(f"| {' | '.join([row.cell, *shares, _points(row.difference), *lost, goal])} |")
    return "\n".join(lines) + "\n"


def _points(metric: Metric) -> str:
    low, high = 100 * (metric.low or 0.0), 100 * (metric.high or 0.0)
    return f"{100 * metric.value:+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    """Train, judge, print and write the table; a missed goal is printed, not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each recipe, from seed 0 on")
    parser.add_argument("--quick", action="store_true", help="one epoch of few images: shows that it works")
    parser.add_argument("--keep", action="store_true", help="keep the bundles that an earlier call trained")
    options = parser.parse_args()
    folder = OUT / ("framing-quick" if options.quick else "framing")
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    source = TESTS / "sample64" if options.quick else TESTS.parent / "data" / "sample"
    dataset = folder / "dataset"
    if not dataset.exists():
        limit = ("--set", "verify_data.limit=160", "--set", "verify_data.min_rows=20") if options.quick else ()
        aidetect("data", "import", str(source), "-o", str(dataset), *limit)
    config = load_config("sample").evaluate.model_copy(update={"robustness_images": 0})
    judged: dict[Cell, dict[str, Judged]] = {}
    seeds = list(range(options.seeds))
    for seed in seeds:
        bundles = {arm: folder / f"{arm}-{seed}" for arm in ARMS}
        for arm, bundle in bundles.items():
            train(bundle, dataset, seed, QUICK if options.quick else {}, before=arm == "before")
        for cell, arms in judge(dataset, bundles, config):
            known = judged.get(cell)
            judged[cell] = {a: known[a].followed_by(one) if known else one for a, one in arms.items()}
    rows = table(judged, config)
    clean = judged[None]["after"]
    text = markdown(rows, len(clean.positive) // len(seeds), len(set(clean.units.tolist())), seeds)
    (OUT / f"{folder.name}.md").write_text(text)
    document = {"seeds": seeds, "quick": options.quick, "rows": [row.document() for row in rows]}
    (OUT / f"{folder.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
