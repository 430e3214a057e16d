"""Tiny packed datasets for the tests of train: bright pictures are ai_generated, dark ones real."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bundles import jpeg
from tests.components.evaluate.packed import pack, row

BRIGHTNESS = (70, 185)
TINY = {
    "architecture": "test_efficientnet",
    "weights": "none",
    "input_px": 64,
    "low_res_epochs": 1,
    "low_res_px": 32,
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "ema_decay": 0.9,
    "threads": 1,
}
"""A configuration that learns the toy data in seconds."""


def pack_toy(
    folder: Path,
    *,
    rows: dict[str, int] | None = None,
    sizes: Sequence[tuple[int, int]] = ((48, 48),),
    labels: Sequence[int] = (0, 1),
) -> Path:
    """Write a packed dataset of noisy grey pictures: `rows` of each split, labels and sizes in turn."""
    splits: dict[str, Sequence[dict[str, object]]] = {}
    for seed, (split, n) in enumerate((rows or {"train": 96, "val": 48}).items()):
        rng = np.random.default_rng(seed)
        pictures = []
        for i in range(n):
            label = labels[i % len(labels)]
            level = int(np.clip(rng.normal(BRIGHTNESS[label], 18), 15, 240))
            data = jpeg(level, sizes[i % len(sizes)], quality=int(rng.integers(75, 96)), seed=1000 * seed + i)
            pictures.append(row(data, label, "toy" if label else "", "toy"))
        splits[split] = pictures
    return pack(folder, splits)
