"""Nearly equal images among many, without comparing all with all, a part of them at a time.

They are found by a banded Hamming search, then the pixels: cut 64 bits into `max_bits + k` blocks, and hashes within
`max_bits` of each other agree in k of them or more. More agreeing blocks make more tables with much smaller buckets;
which k costs least depends on how many images there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Final

import numpy as np
import numpy.typing as npt

from components.verify_data.scratch import Appended, Dealt, Rows, parts_of, pieces, scratch

Hashes = npt.NDArray[np.uint64]

HASH_BITS: Final = 64
MAX_BUCKET: Final = 4096
"""An image is compared with at most so many others that share the blocks of one table; more do so only in degenerate
data (thousands of almost equal pictures), where this keeps time bounded."""
_MOST_AGREEING: Final = 4
_SORT_COST: Final = 30
"""Of sorting one hash into a table, in comparisons of two hashes; measured 20 to 40."""
_LOOK_AT: Final = 2048
"""Thumbnails compared at a time: 1 MB in each intermediate array."""
PAIR: Final = np.dtype([("left", np.intp), ("right", np.intp), ("bits", np.uint8), ("mirrored", np.bool_)])


@dataclass(frozen=True, slots=True)
class NearPairs:
    """m pairs of rows that show the same picture, left < right, sorted."""

    pairs: npt.NDArray[np.void]
    """Shape (m,), fields of `PAIR`: bits in which the perceptual hashes differ, and whether the right picture is the
    mirror image of the left one; mapped."""
    cut_short: bool = False
    """Some images share a band with more than `MAX_BUCKET` others: pairs among those may be missing."""

    @classmethod
    def of(cls, parts: Iterable[npt.NDArray[np.void]], cut_short: bool) -> "NearPairs":
        """Pairs that come a part at a time."""
        found = Appended(PAIR)
        for part in parts:
            found.add(part)
        return cls(found.array(), cut_short)

    def pieces(self) -> Iterator[npt.NDArray[np.void]]:
        """All pairs, in order, a piece at a time."""
        for piece in pieces(len(self.pairs)):
            yield np.array(self.pairs[piece])


def near_pairs(
    hashes: Hashes,
    mirrored_hashes: Hashes,
    thumbnails: npt.NDArray[np.uint8],
    thumbnail_rows: Rows,
    max_bits: int,
    max_levels: float,
) -> NearPairs:
    """All pairs within `max_bits` of hash distance whose thumbnails differ by at most `max_levels` of 255 on average.

    Args:
        hashes: perceptual hashes, shape (n,).
        mirrored_hashes: those of the mirrored pictures, shape (n,).
        thumbnails: grey, shape (m, side, side); a mapped file will do, few are looked at.
        thumbnail_rows: which of them belongs to each hash, shape (n,).
        max_bits: Hamming distance, below 16.
        max_levels: mean absolute difference of the thumbnails.
    """
    n = len(hashes)
    queries = scratch(np.uint64, 2 * n)
    queries[:n], queries[n:] = hashes, mirrored_hashes
    found, cut_short = Appended(np.int64), False
    for blocks in _tables(max_bits, _agreeing(len(queries), max_bits)):
        for first, second, stopped in _table(queries, n, blocks, max_bits):
            mirrored = (first >= n) | (second >= n)
            left, right = np.minimum(first % n, second % n), np.maximum(first % n, second % n)
            found.add(((left * n + right) * 2 + mirrored)[left != right])
            cut_short = cut_short or stopped
    looked = _Looked(queries, thumbnails, thumbnail_rows, max_levels)
    return NearPairs.of(map(looked.alike, _distinct(found.array(), 2 * n * n)), cut_short)


def _distinct(keys: npt.NDArray[np.int64], limit: int) -> Iterator[npt.NDArray[np.int64]]:
    """Keys below a limit, ascending: most pairs agree in more blocks than a table asks for, and were found in many."""
    parts = parts_of(len(keys))
    # even, for a pair's two keys are neighbours
    width = 2 * -(-limit // (2 * parts))
    for places in Dealt(len(keys), parts, lambda piece: keys[piece] // width):
        yield np.unique(keys[places])


@dataclass(frozen=True, slots=True)
class _Looked:
    """What candidates are looked at by."""

    queries: Hashes
    thumbnails: npt.NDArray[np.uint8]
    thumbnail_rows: Rows
    max_levels: float

    def alike(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
        """Those of ascending keys whose pictures are alike, as `PAIR`."""
        n = len(self.queries) // 2
        left, right, mirrored = (keys // 2) // n, (keys // 2) % n, (keys % 2).astype(bool)
        rows = self.thumbnail_rows
        alike = _alike(self.thumbnails, rows[left], rows[right], mirrored, self.max_levels)
        left, right, mirrored = left[alike], right[alike], mirrored[alike]
        # a symmetric picture matches both ways: say the plain one, which comes first
        fresh = np.ones(len(left), bool)
        fresh[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
        left, right, mirrored = left[fresh], right[fresh], mirrored[fresh]
        plain, turned = self.queries[:n], self.queries[n:]
        ways = np.bitwise_count(plain[left] ^ turned[right]), np.bitwise_count(turned[left] ^ plain[right])
        pairs = np.empty(len(left), PAIR)
        pairs["left"], pairs["right"], pairs["mirrored"] = left, right, mirrored
        pairs["bits"] = np.where(mirrored, np.minimum(*ways), np.bitwise_count(plain[left] ^ plain[right]))
        return pairs


def _agreeing(queries: int, max_bits: int) -> int:
    """In how many blocks hashes have to agree, so that the search costs least."""

    def cost(agreeing: int) -> float:
        blocks = max_bits + agreeing
        bucket = queries / 2 ** (HASH_BITS * agreeing / blocks)
        return comb(blocks, agreeing) * (_SORT_COST + bucket / 2)

    return min(range(1, _MOST_AGREEING + 1), key=cost)


def _tables(max_bits: int, agreeing: int) -> Iterator[list[tuple[int, int]]]:
    """(shift, width) of the blocks that each table is sorted by: every choice of `agreeing` blocks."""
    edges = np.linspace(0, HASH_BITS, max_bits + agreeing + 1).round().astype(int)
    blocks = [(low, high - low) for low, high in pairwise(edges.tolist())]
    yield from map(list, combinations(blocks, agreeing))


def _keys(queries: Hashes, blocks: list[tuple[int, int]]) -> Hashes:
    """The bits of these blocks, one after another."""
    keys = np.zeros(len(queries), np.uint64)
    for shift, width in blocks:
        mask = np.uint64(2**width - 1)
        # a block of all 64 bits is the only one: nothing stands before it
        keys = (keys << np.uint64(width % HASH_BITS)) | ((queries >> np.uint64(shift)) & mask)
    return keys


def _table(queries: Hashes, n: int, blocks: list[tuple[int, int]], max_bits: int) -> Iterator[tuple[Rows, Rows, bool]]:
    """Pairs of positions in `queries` that agree in these blocks, a part of all keys at a time."""
    parts = parts_of(len(queries))
    # by the remainder: perceptual hashes lie close together in their ranges
    for rows in Dealt(len(queries), parts, lambda piece: _keys(queries[piece], blocks) % np.uint64(parts)):
        hashes = queries[rows]
        yield _bucketed(hashes, _keys(hashes, blocks), n, max_bits, rows)


def _bucketed(queries: Hashes, keys: Hashes, n: int, max_bits: int, rows: Rows) -> tuple[Rows, Rows, bool]:
    """Pairs of `rows` of one key whose hashes differ in at most `max_bits` bits.

    The flag says that the comparing stopped at `MAX_BUCKET` neighbours.
    """
    order = np.lexsort((queries, keys))
    keys, hashes = keys[order], queries[order]
    ends = np.searchsorted(keys, keys, side="right")
    order = rows[order]
    alive = np.arange(len(order))
    found: list[tuple[Rows, Rows]] = []
    for step in range(1, MAX_BUCKET + 1):
        alive = alive[alive + step < ends[alive]]
        if not len(alive):
            break
        close = np.bitwise_count(hashes[alive] ^ hashes[alive + step]) <= max_bits
        first, second = order[alive[close]], order[alive[close] + step]
        # two mirrored pictures are as far apart as the two plain ones
        useful = (first < n) | (second < n)
        found.append((first[useful], second[useful]))
    none = [np.empty(0, np.intp)]
    return (
        np.concatenate([pair[0] for pair in found] or none),
        np.concatenate([pair[1] for pair in found] or none),
        bool((alive + MAX_BUCKET + 1 < ends[alive]).any()),
    )


def _alike(
    thumbnails: npt.NDArray[np.uint8], left: Rows, right: Rows, mirrored: npt.NDArray[np.bool_], max_levels: float
) -> npt.NDArray[np.bool_]:
    alike = np.empty(len(left), bool)
    for part in pieces(len(left), _LOOK_AT):
        a = thumbnails[left[part]].astype(np.int16)
        b = thumbnails[right[part]].astype(np.int16)
        b = np.where(mirrored[part][:, None, None], b[:, :, ::-1], b)
        alike[part] = np.abs(a - b).mean((1, 2)) <= max_levels
    return alike
