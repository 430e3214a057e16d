"""What a trained model decides: to review, wrongly, outside its domain; and what a limit on review would change.

`python -m tests.bench.bench_decisions BUNDLE [--photos FOLDER ...]`: a bundle trained on the sample, e.g. the folder
that `aidetect run` registered. The first table counts each signal of the domain on the test split, on generators never
trained on and on photographs of packages (scikit-image and scikit-learn, fetched once, or the given folders), which
are told apart by whether their smaller side lies in the trained range. The second sets the thresholds anew on val for
several `train.decision.max_review` and measures them on test. Intervals are those of the evaluation, by photograph.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from components.artifacts.dataset import TEST, UNSEEN, VAL, Dataset
from components.artifacts.evaluation import Metric
from components.evaluate.config import EvaluateConfig
from components.evaluate.decisions import SIGNALS, Decided
from components.evaluate.intervals import proportion
from components.evaluate.metrics import Judged
from components.evaluate.scoring import Plan, score_split
from components.evaluate.slices import Frame
from components.train.calibrate import choose_bands
from components.train.config import DecisionConfig
from serving.detector.conclusion import DecisionBands
from serving.detector.detector import Detector
from serving.platform.errors import ImageRefusedError
from tests.bench.environments import python_of
from tests.processor import instruction_sets

OUT: Final = Path("workspace/bench")
SAMPLE: Final = Path("data/sample")
LIMITS: Final = (None, 0.3, 0.2, 0.1, 0.05)
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
MOST_BYTES: Final = 10 * 2**20


def decided(detector: Detector, data: Dataset, split: str) -> Decided:
    """Decisions on a split by the bundle's own thresholds."""
    frame = Frame.read(data, split)
    found = score_split(data, frame, Plan([detector]), EvaluateConfig())
    judged = Judged.of(frame.positive, found.clean[0], detector.rule, frame.units)
    return Decided(judged, detector.bands(), found.outside_by, detector.manifest.domain)


def photographs(folders: Sequence[Path]) -> Iterator[bytes]:
    """Every picture below the folders that a server would take by its size."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and "tests" not in path.parts and path.stat().st_size <= MOST_BYTES:
                yield path.read_bytes()


def of_files(detector: Detector, files: Iterable[bytes]) -> tuple[Decided, int]:
    """Decisions on loose photographs, all real, and how many were refused."""
    judged, refused = [], 0
    for data in files:
        try:
            judged.append(detector.judge(data))
        except ImageRefusedError:
            refused += 1
    logits = np.array([one.logit for one in judged], dtype=np.float64)
    by = [{signal.name for signal in one.conclusion.domain.outside_by} for one in judged]
    outside_by = np.array([[name in names for names in by] for name in SIGNALS], dtype=bool)
    real = Judged.of(np.zeros(len(judged), dtype=bool), logits, detector.rule)
    return Decided(real, detector.bands(), outside_by, detector.manifest.domain), refused


def part(of: Decided, rows: npt.NDArray[np.bool_]) -> Decided:
    """The same decisions on some of the images."""
    return Decided(of.judged.take(np.flatnonzero(rows)), of.bands, of.outside_by[:, rows], of.domain)


def share(metric: Metric | None) -> str:
    """`0.4 % (0.2-1.0)`."""
    if metric is None:
        return "-"
    return f"{100 * metric.value:.1f} % ({100 * (metric.low or 0.0):.1f}-{100 * (metric.high or 0.0):.1f})"


def domain_rows(groups: dict[str, Decided]) -> list[dict[str, Any]]:
    """Each signal's own rate, all together, and how sure the answers are."""
    rows = []
    for name, one in groups.items():
        if not len(one.judged.positive):
            continue
        figures = one.figures()
        high = np.array([confidence == "high" for confidence in one.judged.confidence], dtype=bool)
        signals: dict[str, Any] = {signal: figures.outside_by.get(signal) for signal in SIGNALS}
        rows.append(
            {
                "photos": name,
                "n": figures.n,
                **signals,
                "outside by any": figures.outside_domain,
                "to review": figures.to_review,
                "`high` as answered": proportion(high & ~one.outside, one.judged.units),
                "`high` by score alone": proportion(high, one.judged.units),
            }
        )
    return rows


def limit_rows(val: Decided, test: Decided, knobs: DecisionConfig) -> list[dict[str, Any]]:
    """Thresholds set on val for each limit, measured on test."""
    rows = []
    threshold = val.judged.threshold
    for limit in LIMITS:
        config = knobs.model_copy(update={"max_review": limit})
        bands: DecisionBands = choose_bands(val.judged.probabilities, val.judged.positive, threshold, config)
        figures = Decided(test.judged, bands, test.outside_by, test.domain).figures()
        rows.append(
            {
                "`max_review`": "none" if limit is None else f"{limit:g}",
                "told (real, generated)": f"{100 * (bands.alpha_real or 0):.1f} %, {100 * (bands.alpha_ai or 0):.1f} %",
                "to review": figures.to_review,
                "real called `likely_ai`": figures.real_called_ai,
                "generated called `likely_real`": figures.ai_called_real,
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a table."""
    cells = [[share(v) if isinstance(v, Metric) or v is None else str(v) for v in row.values()] for row in rows]
    head, *lines = (f"| {' | '.join(line)} |\n" for line in (list(rows[0]), *cells))
    return "".join([head, "|" + "---|" * len(rows[0]) + "\n", *lines])


def packed(source: Path, folder: Path) -> Dataset:
    """The sample as the stages take it."""
    program = Path(sys.executable).with_name("aidetect")
    subprocess.run([program, "data", "import", source, "-o", folder], check=True, stdout=subprocess.DEVNULL)
    return Dataset(folder)


def main() -> None:
    """Judge, print and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle trained on the sample")
    parser.add_argument("--photos", type=Path, nargs="*", help="folders of photographs instead of the packages'")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="what to import as the sample")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    detector = Detector.load(options.bundle)
    domain = detector.manifest.domain
    if domain is None:
        parser.error(f"{options.bundle}: older than domains; train it again")
    folders = options.photos or [python_of("photographs").parents[1] / "lib"]
    with tempfile.TemporaryDirectory() as made:
        data = packed(options.data, Path(made) / "dataset")
        splits = {split: decided(detector, data, split) for split in (VAL, TEST, UNSEEN)}
    loose, refused = of_files(detector, photographs(folders))
    beyond = loose.outside_by[SIGNALS.index("min_side_px")]
    low, high = domain.min_side_px
    groups = {
        "test split": splits[TEST],
        "generators never trained on": splits[UNSEEN],
        f"photographs of packages, smaller side beyond {low:.0f}-{high:.0f} px": part(loose, beyond),
        "the same, smaller side within": part(loose, ~beyond),
    }
    knobs = DecisionConfig.model_validate(detector.manifest.provenance.train_config.get("decision", {}))
    tables = {"domain": domain_rows(groups), "max_review": limit_rows(splits[VAL], splits[TEST], knobs)}
    accuracy = proportion(splits[TEST].judged.right, splits[TEST].judged.units)
    text = (
        f"{datetime.now(UTC).date().isoformat()}, {', '.join(instruction_sets())}; bundle "
        f"`{detector.manifest.digest[:12]}`, accuracy on test {share(accuracy)}; {refused} other files refused.\n\n"
        f"{markdown(tables['domain'])}\n{markdown(tables['max_review'])}"
    )
    (OUT / "decisions.md").write_text(text)
    plain = {k: [{n: _plain(v) for n, v in row.items()} for row in rows] for k, rows in tables.items()}
    (OUT / "decisions.json").write_text(json.dumps({"bundle": detector.manifest.digest, **plain}, indent=1) + "\n")
    print(text)


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, Metric) else value


if __name__ == "__main__":
    main()
