"""Cutting splits from images that come in one heap: copies and sources never part, classes keep their shares."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from components.verify_data.inspection import Inspection
from components.verify_data.measurements import Digests, hexadecimal
from components.verify_data.rows import Batch
from components.verify_data.scratch import (
    Appended,
    Dealt,
    Rows,
    by_leading_bytes,
    filled,
    pieces,
    places,
    scratch,
    taken,
)
from serving.detector.labels import LABELS

_CLASSES: Final = len(LABELS)
_LEAVES: Final = {"test": 2, "val": 1}
"""Groups of each class that a split must leave to the splits after it: val and train, or train."""
_FAR_OFF: Final = 0.05
"""A difference between the share that was wanted and the one reached that is worth a sentence."""


LINK: Final = np.dtype([("left", np.intp), ("right", np.intp)])
"""Two images that stay together."""
Links = npt.NDArray[np.void]
Labels = npt.NDArray[np.integer[Any]]


def linked(left: Rows, right: Rows) -> Links:
    """Links of each item of one array with that of the other, as `LINK`."""
    found = np.empty(len(left), LINK)
    found["left"], found["right"] = left, right
    return found


class SourceColumn:
    """Notes the source of every image as it passes: which shop, seller or shooting it came from."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._first: list[int] = []
        self._rows = 0
        self._links = Appended(LINK)

    def add(self, batch: Batch, inspection: Inspection) -> None:  # noqa: ARG002 - a sink is given both
        """Take one inspected batch."""
        found = [(i, self._codes.setdefault(name, len(self._codes))) for i, name in enumerate(batch.sources) if name]
        rows = [self._rows + i for i, _ in found]
        for row, (_, code) in zip(rows, found, strict=True):
            if code == len(self._first):
                self._first.append(row)
        self._links.add(linked(np.array(rows, np.intp), np.array([self._first[code] for _, code in found], np.intp)))
        self._rows += len(batch.sources)

    @property
    def count(self) -> int:
        """Different sources seen."""
        return len(self._codes)

    def links(self) -> Iterator[Links]:
        """Pairs of rows of one source, each with the first of it, a piece at a time; asked once, at the end."""
        found = self._links.array()
        return (np.array(found[piece]) for piece in pieces(len(found)))


@dataclass(frozen=True, slots=True)
class _Groups:
    """The sets of images that stay together; a set is known by the number of its least digest among those of all."""

    of: Rows
    """The set of each of n images; mapped."""
    counts: npt.NDArray[np.int64]
    """Images of each class by set, shape (numbers, classes), all zero where a number is no set's; mapped."""
    order: Dealt
    """Numbers in ascending ranges of their keys, numbers that are no set's among them."""
    keys: Digests
    """Where each set stands in the order of choice: a hash of the seed and of its least digest; mapped."""

    def ordered(self) -> Iterator[Rows]:
        """The sets in the order of choice, a part of them at a time."""
        for some in self.order:
            sets = some[self.counts[some].any(1)]
            yield sets[np.argsort(self.keys[sets], kind="stable")]


def _numbered(digests: Digests) -> tuple[Rows, Digests]:
    """The number of each image's digest among all that differ, ascending, and those."""
    of, distinct, count = scratch(np.intp, len(digests)), Appended(digests.dtype), 0
    for rows in by_leading_bytes(len(digests), lambda piece: digests[piece]):
        different, inverse = np.unique(digests[rows], return_inverse=True)
        of[rows] = inverse + count
        distinct.add(different)
        count += len(different)
    return of, distinct.array()


def _joined(of: Rows, count: int, links: Links) -> Rows:
    """The least number that each of `count` is linked to, over any number of links."""
    least = filled(np.intp, count, lambda piece: np.arange(piece.start, piece.stop))
    joined = True
    while joined:
        joined = False
        for piece in pieces(len(links)):
            ends = least[of[links["left"][piece]]], least[of[links["right"][piece]]]
            low, high = np.minimum(*ends), np.maximum(*ends)
            if (low != high).any():
                np.minimum.at(least, high, low)
                joined = True
        for piece in pieces(count) if joined else ():
            # what a number points to comes before it, and so points to the least already, or does in this piece
            while not np.array_equal(nearer := least[least[piece]], least[piece]):
                least[piece] = nearer
    return least


def _grouped(digests: Digests, labels: Labels, links: Links, seed: int) -> _Groups:
    """Images of equal pixels and linked images go together."""
    of, distinct = _numbered(digests)
    least = _joined(of, len(distinct), links)
    counts = scratch(np.int64, len(distinct), _CLASSES)
    for piece in pieces(len(digests)):
        of[piece] = least[of[piece]]
        np.add.at(counts, (of[piece], labels[piece]), 1)
    keys = filled(distinct.dtype, len(distinct), lambda piece: _keys(seed, distinct[piece]))
    return _Groups(of, counts, by_leading_bytes(len(keys), lambda piece: keys[piece]), keys)


def choose(
    digests: Digests, labels: Labels, links: Links, fraction: float, seed: int, leave: int = 1
) -> npt.NDArray[np.bool_]:
    """Which of n images become another split.

    Copies never part: images of equal pixels, and linked ones, go together. Groups are taken in the order of a hash of
    their content and the seed, so the choice does not depend on names or order.

    Args:
        digests: pixel hashes, shape (n,).
        labels: class ids, shape (n,).
        links: pairs of positions that must stay together, as `LINK`.
        fraction: share of each class that is wanted, reached to within one group.
        seed: another seed, another choice.
        leave: groups of each class that stay, whatever was wanted.
    """
    if not len(digests):
        return np.zeros(0, bool)
    groups = _grouped(digests, labels, links, seed)
    chosen = _taken(groups, fraction, leave)
    return filled(np.bool_, len(digests), lambda piece: chosen[groups.of[piece]])


def _taken(groups: _Groups, fraction: float, leave: int) -> npt.NDArray[np.bool_]:
    """Which groups are taken: in order those that fit, then whole ones for as long as that comes nearer."""
    counts = groups.counts
    images, holding = np.zeros(_CLASSES, np.int64), np.zeros(_CLASSES, np.int64)
    for piece in pieces(len(counts)):
        images += counts[piece].sum(0)
        holding += (counts[piece] > 0).sum(0)
    # of two images one can go; a share of few images still is one
    wanted = np.maximum(np.floor(fraction * images + 0.5), 1)
    taken, left = np.zeros(_CLASSES), holding - leave
    chosen = scratch(np.bool_, len(counts))
    for place, mine in ((at, counts[at]) for sets in groups.ordered() for at in sets.tolist()):
        held = mine > 0
        if (taken[held] + mine[held] <= wanted[held]).all() and (left[held] > 0).all():
            chosen[place] = True
            taken += mine
            left -= held
            if ((taken >= wanted) | (left <= 0)).all():
                break
    while True:
        best, least = -1, np.abs(taken - wanted).sum()
        for sets in groups.ordered():
            held = counts[sets] > 0
            may = ~chosen[sets] & ~(held & (left <= 0)).any(1)
            missed = np.where(may, np.abs(taken + counts[sets] - wanted).sum(1), np.inf)
            if len(sets) and missed.min() < least:
                best, least = int(sets[np.argmin(missed)]), missed.min()
        if best < 0:
            return chosen
        chosen[best] = True
        taken += counts[best]
        left = left - (counts[best] > 0)


def cut_splits(
    digests: Digests, labels: Labels, links: Links, shares: dict[str, float], seed: int
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of n images go to each split; the others are left to train.

    Args:
        digests: pixel hashes, shape (n,).
        labels: class ids, shape (n,).
        links: pairs of positions that must stay together, as `LINK`.
        shares: `test` and `val`, or one of them, as shares of all n.
        seed: another seed, another choice.
    """
    free = filled(np.bool_, len(digests), lambda piece: np.ones(piece.stop - piece.start, bool))
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for split in (name for name in _LEAVES if name in shares):
        rows = places(len(free), lambda piece: free[piece])
        place = scratch(np.intp, len(free))
        place[:] = -1
        for piece in pieces(len(rows)):
            place[rows[piece]] = np.arange(piece.start, piece.stop)
        inside = Appended(LINK)
        for piece in pieces(len(links)):
            ends = place[links["left"][piece]], place[links["right"][piece]]
            inside.add(linked(*ends)[(ends[0] >= 0) & (ends[1] >= 0)])
        chosen = choose(
            taken(digests, rows),
            taken(labels, rows),
            inside.array(),
            shares[split] * len(digests) / max(1, len(rows)),
            seed,
            _LEAVES[split],
        )
        found[split] = scratch(np.bool_, len(free))
        for piece in pieces(len(rows)):
            found[split][rows[piece]] = chosen[piece]
            free[rows[piece]] = ~chosen[piece]
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
