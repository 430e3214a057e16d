"""Training's input rate against the network's step rate, and images/s against a plain PyTorch recipe, in one run.

`python -m tests.bench.bench_training` trains as the profile `sample` does, on `data/sample`, for a few steps each way.
The plain recipe is what one would write first: a folder of files, PIL and torchvision transforms in every epoch, whole
photos, every layer, f32, the default memory layout, the same network, batch and optimizer. Rates are per second of CPU
time of all threads (times the cores used), so that a busy machine moves the ratios little; wall rates stand beside
them. What parts of photos and frozen layers cost in accuracy is no matter of this table: docs/TRAINING.md tells it.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from components.artifacts.dataset import TRAIN, VAL, Dataset
from components.train.config import TrainConfig
from components.train.dataset import Batch, Decoded, batches, decode_train, decode_validation, epoch_order
from components.train.distributed import Ranks
from components.train.loop import Trainer, prepare_device
from components.train.model import Network, build
from pipelines.config import load_config
from serving.platform.cores import usable_cores
from tests.components.evaluate.packed import pack, sample_rows

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
LOADER_TARGET = 10.0
TRAINING_TARGET = 1.5


def rate(work: Callable[[int], None], batch: int, seconds: float) -> dict[str, float]:
    """Images/s of `work(step)` by CPU time and by the clock, after one step to warm up."""
    work(0)
    steps, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        steps += 1
        work(steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_cpu_s": steps * batch / cpu, "per_s": steps * batch / wall, "steps": steps}


def loader_rate(data: Decoded, config: TrainConfig, seconds: float) -> dict[str, float]:
    """Augmented images/s of the loader alone, from the memory-mapped cache."""
    order = epoch_order(len(data.labels), 0, 0)

    def endless() -> Iterator[Batch]:
        epoch = 0
        while True:
            key = (0, epoch, 0)
            yield from batches(data, order, config.batch_size, key, config.augment, config.loader_threads, config.part)
            epoch += 1

    stream = endless()

    def take(_: int) -> None:
        next(stream)

    return rate(take, config.batch_size, seconds)


def trainer_rate(data: Decoded, config: TrainConfig, trainer: Trainer, seconds: float) -> dict[str, float]:
    """Images/s of whole steps: loader, resize, forward, backward, optimizer, averaged weights."""
    order = epoch_order(len(data.labels), 0, 0)
    key = (0, 0, 0)
    stream = batches(data, order, config.batch_size, key, config.augment, config.loader_threads, config.part)
    trainer._ranked.train()
    try:

        def whole(step: int) -> None:
            trainer._step(next(stream), step, config.side_px(0))

        return rate(whole, config.batch_size, seconds)
    finally:
        stream.close()  # type: ignore[attr-defined]


def plain_rate(folder: Path, network: Network, config: TrainConfig, seconds: float) -> dict[str, float]:
    """Images/s of the plain recipe."""
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
    stream: Any = iter(loader)
    model = network.model.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(_: int) -> None:
        pixels, labels = next(stream)
        loss = nn.functional.binary_cross_entropy_with_logits(model(pixels).squeeze(1), labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return rate(step, config.batch_size, seconds)


def unpack(folder: Path) -> None:
    """Their training images as files in one folder a class."""
    table = pq.read_table(SAMPLE / "train.parquet", columns=["image", "label"])
    for i, (image, label) in enumerate(zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)):
        target = folder / ("ai_generated" if label else "real") / f"{i:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image["bytes"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="time for each of the three measurements")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = load_config("sample").train
    ranks = Ranks(0, 1, torch.device("cpu"))
    prepare_device(config, ranks, usable_cores())
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        packed = Dataset(pack(root / "packed", {s: sample_rows(SAMPLE, s) for s in (TRAIN, VAL)}))
        unpack(root / "files")
        data, validation = decode_train(packed, root, config), decode_validation(packed, root, config)
        found = {"loader": loader_rate(data, config, options.seconds)}
        trainer = Trainer(build(config), data, validation, config, ranks)
        found["training"] = trainer_rate(data, config, trainer, options.seconds)
        found["plain"] = plain_rate(root / "files", build(config), config, options.seconds)
    per_cpu = {name: figures["per_cpu_s"] for name, figures in found.items()}
    ratios = {
        "loader_over_step": per_cpu["loader"] / per_cpu["training"],
        "training_over_plain": per_cpu["training"] / per_cpu["plain"],
    }
    if options.json:
        print(json.dumps({"rates": found, "ratios": ratios}, indent=1))
        return
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"{config.architecture}, {config.input_px} px, batch {config.batch_size}, {threads} threads, load {load:.1f}")
    for name, figures in found.items():
        print(f"  {name:<9} {figures['per_cpu_s']:8.0f} images/s of CPU  {figures['per_s']:8.0f} images/s by the clock")
    reached = "reached" if ratios["loader_over_step"] >= LOADER_TARGET else "MISSED"
    print(f"  loader over step rate   {ratios['loader_over_step']:6.1f}x  (target {LOADER_TARGET:.0f}x: {reached})")
    reached = "reached" if ratios["training_over_plain"] >= TRAINING_TARGET else "MISSED"
    print(
        f"  training over plain     {ratios['training_over_plain']:6.2f}x  (target {TRAINING_TARGET:.1f}x: {reached})"
    )


if __name__ == "__main__":
    main()
