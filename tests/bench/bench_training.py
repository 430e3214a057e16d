"""Training's input rate against the network's step rate, and images/s against a plain PyTorch recipe, in one run.

`python -m tests.bench.bench_training` trains as the profile `sample` does, on `data/sample`, for a few steps each way,
in turns. The plain recipe is what one would write first: a folder of files, PIL and torchvision transforms in every
epoch, whole photos, every layer, f32, the default memory layout, the same network, batch and optimizer. Beside our own
recipe stands ours of whole photos and every layer: what is left then was not won by doing less. Rates are per second
of CPU time of all threads, so that a busy machine moves the ratios little; wall rates stand beside them. What parts of
photos and frozen layers cost in accuracy is no matter of this table: docs/TRAINING.md tells it.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from components.artifacts.dataset import TRAIN, VAL, Dataset
from components.train.config import TrainConfig
from components.train.dataset import Batch, Decoded, Validation, batches, decode_train, decode_validation, epoch_order
from components.train.distributed import Ranks
from components.train.loop import Trainer, prepare_device
from components.train.model import Network, build
from pipelines.config import load_config
from serving.platform.cores import usable_cores
from tests.components.evaluate.packed import pack, sample_rows
from tests.processor import instruction_sets

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
LOADER_TARGET = 10.0
TRAINING_TARGET = 1.5


@dataclass(frozen=True, slots=True)
class Way:
    """One way to take images through, and how many batches of them make a turn."""

    step: Callable[[int], None]
    steps: int
    """So many that no turn is too short for the process's clock, and none long."""


def taken_in_turns(ways: Mapping[str, Way], batch: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds an image of each way, in every round, after one step of each to warm up.

    In turns, because a shared machine's speed changes within seconds: what is compared must meet the same.
    """
    for way in ways.values():
        way.step(0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for step in range(way.steps):
                way.step(1 + number * way.steps + step)
            images = way.steps * batch
            found[name].append(((time.process_time() - cpu) / images, (time.perf_counter() - wall) / images))
    return found


def endless(data: Decoded, config: TrainConfig) -> Iterator[Batch]:
    """Augmented batches, epoch after epoch, from the memory-mapped cache."""
    order, epoch = epoch_order(len(data.labels), 0, 0), 0
    while True:
        key = (0, epoch, 0)
        yield from batches(data, order, config.batch_size, key, config.augment, config.loader_threads, config.part)
        epoch += 1


def trained(data: Decoded, validation: Validation, config: TrainConfig, ranks: Ranks) -> Callable[[int], None]:
    """Whole steps of our training: loader, resize, forward, backward, optimizer, averaged weights."""
    trainer, stream = Trainer(build(config), data, validation, config, ranks), endless(data, config)
    trainer._ranked.train()
    for norm in trainer._frozen_norms:
        norm.eval()

    def step(number: int) -> None:
        trainer._step(next(stream), number, config.side_px(0))

    return step


def plain(folder: Path, network: Network, config: TrainConfig) -> Callable[[int], None]:
    """Whole steps of the plain recipe."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    recipe = transforms.Compose(
        [
            transforms.Resize((config.input_px, config.input_px)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(network.mean, network.std),
        ]
    )
    images = ImageFolder(folder, recipe)
    loader = torch.utils.data.DataLoader(images, batch_size=config.batch_size, shuffle=True, drop_last=True)
    stream: Any = chain.from_iterable(repeat(loader))
    model = network.model.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(_: int) -> None:
        pixels, labels = next(stream)
        loss = nn.functional.binary_cross_entropy_with_logits(model(pixels).squeeze(1), labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def unpack(folder: Path) -> None:
    """Their training images as files in one folder a class."""
    table = pq.read_table(SAMPLE / "train.parquet", columns=["image", "label"])
    for i, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
        target = folder / ("ai_generated" if label else "real") / f"{i:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image["bytes"])


def measured(config: TrainConfig, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds an image of the loader, of our training, of ours without its shortcuts, and of the plain."""
    ranks = Ranks(0, 1, torch.device("cpu"))
    prepare_device(config, ranks, usable_cores())
    whole = config.model_copy(update={"part": 1.0, "frozen_layers": 0})
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        packed = Dataset(pack(root / "packed", {s: sample_rows(SAMPLE, s) for s in (TRAIN, VAL)}))
        unpack(root / "files")
        data, validation = decode_train(packed, root, config), decode_validation(packed, root, config)
        stream = endless(data, config)

        def load(_: int) -> None:
            next(stream)

        ways = {
            "loader": Way(load, 12),
            "training": Way(trained(data, validation, config, ranks), 2),
            "whole": Way(trained(data, validation, whole, ranks), 1),
            "plain": Way(plain(root / "files", build(config), config), 1),
        }
        return taken_in_turns(ways, config.batch_size, rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = load_config("sample").train
    found = measured(config, options.rounds)

    def ratio(over: str, under: str) -> float:
        """How many times cheaper `under` is, by CPU time."""
        return statistics.median(a[0] / b[0] for a, b in zip(found[over], found[under], strict=True))

    ratios = {
        "loader_over_step": ratio("training", "loader"),
        "training_over_plain": ratio("plain", "training"),
        "whole_over_plain": ratio("plain", "whole"),
    }
    rates = {
        name: {kind: 1 / statistics.median(one[at] for one in turns) for at, kind in enumerate(("per_cpu_s", "per_s"))}
        for name, turns in found.items()
    }
    if options.json:
        print(json.dumps({"rates": rates, "ratios": ratios}, indent=1))
        return
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(
        f"{config.architecture}, {config.input_px} px, parts of {config.part:g}, {config.frozen_layers} layers frozen, "
        f"batch {config.batch_size}, {threads} threads, load {load:.1f}, {', '.join(instruction_sets())}"
    )
    for name, figures in rates.items():
        print(f"  {name:<9} {figures['per_cpu_s']:8.1f} images/s of CPU  {figures['per_s']:8.1f} images/s by the clock")
    for says, name, target in (
        ("loader over step rate", "loader_over_step", LOADER_TARGET),
        ("training over plain", "training_over_plain", TRAINING_TARGET),
    ):
        reached = "reached" if ratios[name] >= target else "MISSED"
        print(f"  {says:<38} {ratios[name]:6.2f}x  (target {target:g}x: {reached})")
    print(f"  {'the same of whole photos, every layer':<38} {ratios['whole_over_plain']:6.2f}x")


if __name__ == "__main__":
    main()
