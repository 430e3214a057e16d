"""One trained toy bundle, shared by the tests that only read it."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from components.artifacts.context import RunContext
from components.artifacts.dataset import Dataset
from components.train.checkpoint import Checkpoints
from components.train.config import TrainConfig
from components.train.dataset import decode_train, decode_validation
from components.train.distributed import Ranks
from components.train.loop import Fitted, Trainer, prepare_device
from components.train.model import build
from components.train.stage import TrainSummary, train
from tests.components.train.packed import TINY, pack_toy
from tests.shared import made_once, once


@dataclass(frozen=True)
class Trained:
    """A finished toy training."""

    dataset: Path
    bundle: Path
    curves: Path
    config: TrainConfig
    summary: TrainSummary


def fit(dataset: Path, scratch: Path, config: TrainConfig) -> Fitted:
    """The training alone, without its export (which takes most of a toy training's time)."""
    scratch.mkdir(exist_ok=True)
    ranks = Ranks(0, 1, torch.device("cpu"))
    prepare_device(config, ranks, cores=1)
    network, packed = build(config), Dataset(dataset)
    data, validation = decode_train(packed, scratch, config), decode_validation(packed, scratch, config)
    return Trainer(network, data, validation, config, ranks).run(Checkpoints(None), lambda record: None)


@pytest.fixture(scope="session", autouse=True)
def _translations_are_read_once() -> Iterator[None]:
    """Each export makes torch's five hundred translations to ONNX anew, for a sixth of a toy export's time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = made_once(ONNXRegistry.from_torchlib, ())
    with pytest.MonkeyPatch.context() as patch:
        # `export` adds to it only what its caller brings
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(make))
        yield


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed dataset of bright and dark pictures."""

    def make(folder: Path) -> None:
        pack_toy(folder / "dataset")

    return once(tmp_path_factory, "toy-data", make) / "dataset"


@pytest.fixture(scope="session")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The bundle trained on `toy_data`. Read only."""
    config = TrainConfig.model_validate(TINY)

    def make(folder: Path) -> None:
        summary = train(toy_data, folder / "bundle", config, RunContext(run_id="toy-run"), folder / "curves.html")
        assert summary is not None
        (folder / "summary.pickle").write_bytes(pickle.dumps(summary))

    folder = once(tmp_path_factory, "trained", make)
    summary = pickle.loads((folder / "summary.pickle").read_bytes())
    return Trained(toy_data, folder / "bundle", folder / "curves.html", config, summary)
