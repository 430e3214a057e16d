"""A small packed dataset on which the toy bundle is often, not always, right."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from components.artifacts.context import RunContext
from components.artifacts.evaluation import Comparison, Evaluation
from components.evaluate.config import EvaluateConfig
from components.evaluate.stage import evaluate
from tests.bundles import jpeg
from tests.components.evaluate.packed import pack, row

GENERATORS = ("gan", "diffusion")


def make_rows(n: int, seed: int, generators: tuple[str, ...] = GENERATORS) -> list[dict[str, object]]:
    """Photos that are mostly dark and generated pictures that are mostly bright; the two overlap."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = i % 2
        level = int(np.clip(rng.normal(150 if label else 106, 32), 5, 250))
        size = (64, 64) if i % 3 else (96, 80)
        generator = generators[i // 2 % len(generators)] if label else "camera"
        rows.append(row(jpeg(level, size, seed=seed * 1000 + i), label, generator, f"shop_{i % 4}", f"{i:04d}.jpg"))
    return rows


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed: 180 test images of both classes, 24 by a generator that no other split holds."""
    unseen = [r for r in make_rows(48, 2, ("newcomer",)) if r["label"] == 1]
    folder = tmp_path_factory.mktemp("data") / "packed"
    return pack(folder, {"test": make_rows(180, 1), "unseen_generator": unseen})


@pytest.fixture(scope="session")
def quick() -> EvaluateConfig:
    """Everything evaluate does, at its smallest; two threads, so that their order matters."""
    return EvaluateConfig(
        champion_uri="",
        robustness_images=40,
        bootstrap_draws=200,
        paired_draws=500,
        latency_runs=3,
        gallery_images=0,
        slice_min_images=20,
        threads=2,
    )


@dataclass(frozen=True)
class Outcome:
    """What a run of the stage left."""

    evaluation: Evaluation
    folder: Path
    report: Path

    @property
    def comparison(self) -> Comparison:
        """With the champion, of which there was one."""
        assert self.evaluation.champion is not None
        return self.evaluation.champion


CONTEXT = RunContext(run_id="run-1")


def run(bundle: Path, dataset: Path, config: EvaluateConfig, out: Path, context: RunContext = CONTEXT) -> Outcome:
    """The stage's function, with its folder and report under `out`."""
    found = evaluate(bundle, dataset, config, context, out / "evaluation", out / "report.html")
    return Outcome(found, out / "evaluation", out / "report.html")


@pytest.fixture(scope="session")
def toy_outcome(
    dataset: Path,
    toy_bundle: Path,
    inverted_bundle: Path,
    quick: EvaluateConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """The toy bundle beside its opposite as champion, with the gallery."""
    base = tmp_path_factory.mktemp("evaluated")
    config = quick.model_copy(update={"champion_uri": str(inverted_bundle), "gallery_images": 3})
    folder, report = base / "evaluation", base / "report.html"
    found = evaluate(toy_bundle, dataset, config, RunContext(run_id="run-1"), folder, report)
    return Outcome(found, folder, report)


@pytest.fixture
def toy_copy(toy_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))
