"""One trained toy bundle, shared by the tests that only read it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from components.artifacts.context import RunContext
from components.train.config import TrainConfig
from components.train.stage import TrainSummary, train
from tests.components.train.packed import TINY, pack_toy


@dataclass(frozen=True)
class Trained:
    """A finished toy training."""

    dataset: Path
    bundle: Path
    curves: Path
    config: TrainConfig
    summary: TrainSummary


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed dataset of bright and dark pictures."""
    return pack_toy(tmp_path_factory.mktemp("train") / "dataset")


@pytest.fixture(scope="session")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The bundle trained on `toy_data`. Read only."""
    folder = tmp_path_factory.mktemp("train")
    config = TrainConfig.model_validate(TINY)
    summary = train(toy_data, folder / "bundle", config, RunContext(run_id="toy-run"), folder / "curves.html")
    assert summary is not None
    return Trained(toy_data, folder / "bundle", folder / "curves.html", config, summary)
