"""Photographs to splits: near-duplicates stay together, and each split gets its share of product-like ones."""

from typing import Final

import numpy as np
import numpy.typing as npt
from packages import Photograph, Pixels
from PIL import Image

SHARES: Final = {"generator": 0.22, "train": 0.35, "val": 0.10, "test": 0.33}
CLOSE_BITS: Final = 9
"""Difference hashes of 64 bits that differ in so many at most are of one scene; mirrored ones count as well."""

Bits = npt.NDArray[np.bool_]


def _hash(pixels: Pixels) -> Bits:
    image = Image.fromarray(pixels)
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    grey = np.asarray(ground.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def groups(shown: dict[str, Pixels]) -> dict[str, int]:
    """A number for each photograph; those alike, or alike when mirrored, have the same."""
    names = sorted(shown)
    straight = np.array([_hash(shown[name]) for name in names])
    mirrored = np.array([_hash(shown[name][:, ::-1]) for name in names])
    number = list(range(len(names)))
    for row in range(len(names)):
        apart = np.minimum((straight != straight[row]).sum(1), (mirrored != straight[row]).sum(1))
        for other in np.flatnonzero(apart <= CLOSE_BITS):
            low, high = sorted((number[row], number[other]))
            number = [low if one == high else one for one in number]
    return dict(zip(names, number, strict=True))


def assign(photos: list[Photograph], group: dict[str, int], seed: int) -> dict[str, str]:
    """The split of each photograph; a group is never cut, products and the rest are shared out alike."""
    rng = np.random.default_rng(seed)
    split: dict[str, str] = {}
    for product in (True, False):
        mine = {group[one.source_id] for one in photos if one.product == product}
        left = sorted(one for one in mine if not any(group[name] == one for name in split))
        ends = np.cumsum(list(SHARES.values())) * len(left)
        for place, number in enumerate(rng.permutation(left)):
            name = list(SHARES)[int(np.searchsorted(ends, place, side="right"))]
            split.update({one.source_id: name for one in photos if group[one.source_id] == number})
    return split
