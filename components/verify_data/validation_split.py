"""Cutting a validation split from train when the source brings none."""

from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Rows = npt.NDArray[np.intp]


def choose_validation(
    digests: list[str], labels: Rows, links: tuple[Rows, Rows], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Which of n training images become validation images.

    Copies never part: images of equal pixels, and images linked as near duplicates, go together. Groups are ordered by
    a hash of their content and the seed, so the choice does not depend on names or order.

    Args:
        digests: pixel hashes, length n.
        labels: class ids, shape (n,).
        links: two arrays of positions; pairs that must stay together.
        fraction: share of each class that is wanted, reached to within one group.
        seed: another seed, another choice.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(digests)
    if not n:
        return np.zeros(0, bool)
    equal = pa.array(digests, pa.string()).dictionary_encode().indices.to_numpy().astype(np.intp)
    nodes = int(equal.max()) + 1 if n else 0
    left, right = equal[links[0]], equal[links[1]]
    _, component = connected_components(
        coo_array((np.ones(len(left), bool), (left, right)), shape=(nodes, nodes)), directed=False
    )
    group = component[equal]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, group[order][1:] != group[order][:-1]])
    ends = np.r_[starts[1:], n]
    keys = [_key(seed, [digests[i] for i in order[a:b]]) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    wanted = fraction * np.bincount(labels, minlength=2)
    taken = np.zeros(2)
    chosen = np.zeros(n, bool)
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        rows = order[starts[place] : ends[place]]
        counts = np.bincount(labels[rows], minlength=2)
        # a group moves only while each class it holds still lacks rows, so neither is overdrawn by more than a group
        if (taken[counts > 0] < wanted[counts > 0]).all():
            chosen[rows] = True
            taken += counts
    return chosen


def _key(seed: int, digests: list[str]) -> bytes:
    """Where a group stands in the order of choice."""
    return sha256(f"{seed} {min(digests)}".encode()).digest()
