"""Cutting a validation split from train when the source brings none."""

from hashlib import sha256
from typing import Final

import numpy as np
import numpy.typing as npt

from components.verify_data.measurements import Digests, Rows, hexadecimal
from serving.detector.labels import LABELS

_CLASSES: Final = len(LABELS)


def choose_validation(
    digests: Digests, labels: Rows, links: tuple[Rows, Rows], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Which of n training images become validation images.

    Copies never part: images of equal pixels, and images linked as near duplicates, go together. Groups are ordered by
    a hash of their content and the seed, so the choice does not depend on names or order.

    Args:
        digests: pixel hashes, shape (n,).
        labels: class ids, shape (n,).
        links: two arrays of positions; pairs that must stay together.
        fraction: share of each class that is wanted, reached to within one group.
        seed: another seed, another choice.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(digests):
        return np.zeros(0, bool)
    distinct, equal = np.unique(digests, return_inverse=True)
    left, right = equal[links[0]], equal[links[1]]
    _, component = connected_components(
        coo_array((np.ones(len(left), bool), (left, right)), shape=(len(distinct), len(distinct))), directed=False
    )
    # nodes ascend, so the first of a component is the least of its digests
    _, least = np.unique(component, return_index=True)
    group = component[equal]
    counts = np.bincount(group * _CLASSES + labels, minlength=len(least) * _CLASSES).reshape(-1, _CLASSES)
    wanted = fraction * np.bincount(labels, minlength=_CLASSES)
    taken = np.zeros(_CLASSES)
    chosen = np.zeros(len(least), bool)
    for place in np.argsort(_keys(seed, distinct, least)):
        held = counts[place] > 0
        # a group moves only while each class it holds still lacks rows, so neither is overdrawn by more than a group
        if (taken[held] < wanted[held]).all():
            chosen[place] = True
            taken += counts[place]
        elif (taken >= wanted).all():
            break
    return np.asarray(chosen[group], bool)


def _keys(seed: int, digests: Digests, least: Rows) -> Digests:
    """Where each group stands in the order of choice: a hash of the seed and of its least digest."""
    keys = bytearray()
    for digest in hexadecimal(digests, least):
        keys += sha256(f"{seed} {digest}".encode()).digest()
    return np.frombuffer(keys, digests.dtype)
