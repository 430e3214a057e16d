"""Training's input rate against the network's step rate, and images/s against a plain PyTorch recipe, in one run.

`python -m tests.bench.bench_training` trains `tf_efficientnet_lite0` at 128 px on `tests/sample64` for a few steps
each way. The plain recipe is what one would write first: a folder of files, PIL and torchvision transforms in every
epoch, f32, the default memory layout, the same network, batch and optimizer. Rates are per second of CPU time of all
threads (times the cores used), so that a busy machine moves the ratios little; wall rates stand beside them.
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
from serving.platform.cores import usable_cores
from tests.components.evaluate.packed import pack, sample_rows

SAMPLE = Path(__file__).resolve().parents[1] / "sample64"
LOADER_TARGET = 10.0
BATCH = 32


def rate(work: Callable[[int], None], seconds: float) -> dict[str, float]:
    """Images/s of `work(step)` by CPU time and by the clock, after one step to warm up."""
    work(0)
    steps, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        steps += 1
        work(steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_cpu_s": steps * BATCH / cpu, "per_s": steps * BATCH / wall, "steps": steps}


def loader_rate(data: Decoded, config: TrainConfig, seconds: float) -> dict[str, float]:
    """Augmented images/s of the loader alone, from the memory-mapped cache."""
    order = epoch_order(len(data.labels), 0, 0)

    def endless() -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from batches(data, order, BATCH, (0, epoch, 0), config.augment, config.loader_threads)
            epoch += 1

    stream = endless()

    def take(_: int) -> None:
        next(stream)

    return rate(take, seconds)


def trainer_rate(data: Decoded, config: TrainConfig, trainer: Trainer, seconds: float) -> dict[str, float]:
    """Images/s of whole steps: loader, resize, forward, backward, optimizer, averaged weights."""
    order = epoch_order(len(data.labels), 0, 0)
    stream = batches(data, order, BATCH, (0, 0, 0), config.augment, config.loader_threads)
    trainer._ranked.train()
    try:

        def whole(step: int) -> None:
            trainer._step(next(stream), step, config.input_px)

        return rate(whole, seconds)
    finally:
        stream.close()  # type: ignore[attr-defined]


def plain_rate(folder: Path, network: Network, px: int, seconds: float) -> dict[str, float]:
    """Images/s of the plain recipe."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    recipe = transforms.Compose(
        [
            transforms.Resize((px, px)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(network.mean, network.std),
        ]
    )
    loader = torch.utils.data.DataLoader(ImageFolder(folder, recipe), batch_size=BATCH, shuffle=True, drop_last=True)
    stream: Any = iter(loader)
    model = network.model.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(_: int) -> None:
        images, labels = next(stream)
        loss = nn.functional.binary_cross_entropy_with_logits(model(images).squeeze(1), labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return rate(step, seconds)


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
    config = TrainConfig(
        architecture="tf_efficientnet_lite0", weights="package", input_px=128, batch_size=BATCH, low_res_epochs=0
    )
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
        found["plain"] = plain_rate(root / "files", build(config), config.input_px, options.seconds)
    per_cpu = {name: figures["per_cpu_s"] for name, figures in found.items()}
    ratios = {
        "loader_over_step": per_cpu["loader"] / per_cpu["training"],
        "training_over_plain": per_cpu["training"] / per_cpu["plain"],
    }
    if options.json:
        print(json.dumps({"rates": found, "ratios": ratios}, indent=1))
        return
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"tf_efficientnet_lite0, 128 px, batch {BATCH}, {threads} threads, load {load:.1f}")
    for name, figures in found.items():
        print(f"  {name:<9} {figures['per_cpu_s']:8.0f} images/s of CPU  {figures['per_s']:8.0f} images/s by the clock")
    reached = "reached" if ratios["loader_over_step"] >= LOADER_TARGET else "MISSED"
    print(f"  loader over step rate   {ratios['loader_over_step']:6.1f}x  (target {LOADER_TARGET:.0f}x: {reached})")
    print(f"  training over plain     {ratios['training_over_plain']:6.2f}x")


if __name__ == "__main__":
    main()
