"""Cutting splits from images that come in one heap: copies and sources never part, classes keep their shares."""

from hashlib import sha256
from typing import Final

import numpy as np
import numpy.typing as npt

from components.verify_data.inspection import Inspection
from components.verify_data.measurements import Digests, Rows, hexadecimal
from components.verify_data.rows import Batch
from serving.detector.labels import LABELS

_CLASSES: Final = len(LABELS)
_LEAVES: Final = {"test": 2, "val": 1}
"""Groups of each class that a split must leave to the splits after it: val and train, or train."""
_FAR_OFF: Final = 0.05
"""A difference between the share that was wanted and the one reached that is worth a sentence."""


class SourceColumn:
    """Notes the source of every image as it passes: which shop, seller or shooting it came from."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._rows: list[int] = []

    def add(self, batch: Batch, inspection: Inspection) -> None:  # noqa: ARG002 - a sink is given both
        """Take one inspected batch."""
        self._rows += [self._codes.setdefault(name, len(self._codes)) if name else -1 for name in batch.sources]

    @property
    def count(self) -> int:
        """Different sources seen."""
        return len(self._codes)

    def links(self) -> tuple[Rows, Rows]:
        """Pairs of rows of one source: each with the first of it."""
        codes = np.array(self._rows, np.intp)
        rows = np.flatnonzero(codes >= 0)
        _, first, inverse = np.unique(codes[rows], return_index=True, return_inverse=True)
        return rows, rows[first[inverse]]


def grouped(digests: Digests, links: tuple[Rows, Rows]) -> tuple[Rows, Digests]:
    """The group of each of n images, and the least digest of each group: equal pixels and linked images go together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    distinct, equal = np.unique(digests, return_inverse=True)
    left, right = equal[links[0]], equal[links[1]]
    _, component = connected_components(
        coo_array((np.ones(len(left), bool), (left, right)), shape=(len(distinct), len(distinct))), directed=False
    )
    # nodes ascend, so the first of a component is the least of its digests
    _, least = np.unique(component, return_index=True)
    return np.asarray(component[equal], np.intp), distinct[least]


def choose(
    digests: Digests, labels: Rows, links: tuple[Rows, Rows], fraction: float, seed: int, leave: int = 1
) -> npt.NDArray[np.bool_]:
    """Which of n images become another split.

    Copies never part: images of equal pixels, and linked ones, go together. Groups are taken in the order of a hash of
    their content and the seed, so the choice does not depend on names or order.

    Args:
        digests: pixel hashes, shape (n,).
        labels: class ids, shape (n,).
        links: two arrays of positions; pairs that must stay together.
        fraction: share of each class that is wanted, reached to within one group.
        seed: another seed, another choice.
        leave: groups of each class that stay, whatever was wanted.
    """
    if not len(digests):
        return np.zeros(0, bool)
    group, least = grouped(digests, links)
    counts = np.bincount(group * _CLASSES + labels, minlength=len(least) * _CLASSES).reshape(-1, _CLASSES)
    chosen = _taken(counts, np.argsort(_keys(seed, least), kind="stable"), fraction, leave)
    return np.asarray(chosen[group], bool)


def _taken(counts: Rows, order: Rows, fraction: float, leave: int) -> npt.NDArray[np.bool_]:
    """Which groups are taken: in order those that fit, then whole ones for as long as that comes nearer."""
    holds = counts > 0
    # of two images one can go; a share of few images still is one
    wanted = np.maximum(np.floor(fraction * counts.sum(0) + 0.5), 1)
    taken, left = np.zeros(_CLASSES), holds.sum(0) - leave
    chosen = np.zeros(len(counts), bool)
    for place in order.tolist():
        held = holds[place]
        if (taken[held] + counts[place][held] <= wanted[held]).all() and (left[held] > 0).all():
            chosen[place] = True
            taken += counts[place]
            left -= held
            if ((taken >= wanted) | (left <= 0)).all():
                break
    while True:
        may = ~chosen[order] & ~(holds[order] & (left <= 0)).any(1)
        missed = np.where(may, np.abs(taken + counts[order] - wanted).sum(1), np.inf)
        best = int(np.argmin(missed))
        if not missed[best] < np.abs(taken - wanted).sum():
            return chosen
        chosen[order[best]] = True
        taken += counts[order[best]]
        left = left - holds[order[best]]


def cut_splits(
    digests: Digests, labels: Rows, links: tuple[Rows, Rows], shares: dict[str, float], seed: int
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of n images go to each split; the others are left to train.

    Args:
        digests: pixel hashes, shape (n,).
        labels: class ids, shape (n,).
        links: two arrays of positions; pairs that must stay together.
        shares: `test` and `val`, or one of them, as shares of all n.
        seed: another seed, another choice.
    """
    free = np.ones(len(digests), bool)
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for split in (name for name in _LEAVES if name in shares):
        rows = np.flatnonzero(free)
        place = np.full(len(free), -1, np.intp)
        place[rows] = np.arange(len(rows))
        ends = (place[links[0]], place[links[1]])
        inside = (ends[0] >= 0) & (ends[1] >= 0)
        share = shares[split] * len(digests) / max(1, len(rows))
        chosen = choose(digests[rows], labels[rows], (ends[0][inside], ends[1][inside]), share, seed, _LEAVES[split])
        found[split] = np.zeros(len(free), bool)
        found[split][rows[chosen]] = True
        free &= ~found[split]
    return found


def cut_told(shares: dict[str, float], counts: dict[str, dict[str, int]], sources: int) -> list[str]:
    """Sentences of what was cut, and of shares that whole groups did not reach.

    Args:
        shares: split -> share that was asked for.
        counts: split -> class -> images it got.
        sources: different sources that were kept together; 0: there were none.
    """
    kept = "copies and near copies" + (f", and each of {sources:,} sources," if sources else "")
    told = [f"{', '.join(f'{name} {share:.3g}' for name, share in shares.items())}; {kept} stay in one split"]
    cut = [counts[name] for name in (*shares, "train") if name in counts]
    for name, share in shares.items():
        for label in LABELS:
            total = sum(found[label] for found in cut)
            got = counts[name][label] / total if total else share
            if abs(got - share) > _FAR_OFF and abs(got - share) * total > 1:
                told.append(
                    f"{name} got {got:.0%} of the {label} images, {share:.0%} were asked for: groups are kept whole"
                )
    return told


def _keys(seed: int, least: Digests) -> Digests:
    """Where each group stands in the order of choice: a hash of the seed and of its least digest."""
    keys = bytearray()
    for digest in hexadecimal(least, np.arange(len(least))):
        keys += sha256(f"{seed} {digest}".encode()).digest()
    return np.frombuffer(keys, least.dtype)
