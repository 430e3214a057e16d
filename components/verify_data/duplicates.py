"""Equal and nearly equal images among many, without comparing all with all, a part of them at a time.

Equal pixels are found by their digests, a range of them at a time. Near duplicates are found by a banded Hamming
search, then the pixels: cut 64 bits into `max_bits + k` blocks, and hashes within `max_bits` of each other agree in k
of them or more. More agreeing blocks make more tables with much smaller buckets; which k costs least depends on how
many images there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.intp]

HASH_BITS: Final = 64
MAX_BUCKET: Final = 4096
"""An image is compared with at most so many others that share the blocks of one table; more do so only in degenerate
data (thousands of almost equal pictures), where this keeps time bounded."""
PARTITION: Final = 2**21
"""Images or hashes that are sorted at a time: some 100 MB of intermediate arrays."""
_MOST_AGREEING: Final = 4
_SORT_COST: Final = 30
"""Of sorting one hash into a table, in comparisons of two hashes; measured 20 to 40."""
_LOOK_AT: Final = 2048
"""Thumbnails compared at a time: 1 MB in each intermediate array."""


@dataclass(frozen=True, slots=True)
class NearPairs:
    """m pairs of rows that show the same picture, left < right, sorted."""

    left: Rows
    right: Rows
    bits: npt.NDArray[np.uint8]
    """Bits in which the perceptual hashes differ."""
    mirrored: npt.NDArray[np.bool_]
    """The right picture is the mirror image of the left one."""
    cut_short: bool = False
    """Some images share a band with more than `MAX_BUCKET` others: pairs among those may be missing."""


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
    queries = np.concatenate([hashes, mirrored_hashes])
    keys, cut_short = np.empty(0, np.intp), False
    for blocks in _tables(max_bits, _agreeing(len(queries), max_bits)):
        for first, second, stopped in _table(queries, n, blocks, max_bits):
            mirrored = (first >= n) | (second >= n)
            left, right = np.minimum(first % n, second % n), np.maximum(first % n, second % n)
            # most pairs agree in more blocks than one table asks for, and are found in many
            keys = np.union1d(keys, ((left * n + right) * 2 + mirrored)[left != right])
            cut_short = cut_short or stopped
    left, right, mirrored = (keys // 2) // n, (keys // 2) % n, (keys % 2).astype(bool)
    alike = _alike(thumbnails, thumbnail_rows[left], thumbnail_rows[right], mirrored, max_levels)
    left, right, mirrored = left[alike], right[alike], mirrored[alike]
    # a symmetric picture matches both ways: say the plain one
    plain_first = np.lexsort((mirrored, right, left))
    left, right, mirrored = left[plain_first], right[plain_first], mirrored[plain_first]
    fresh = np.ones(len(left), bool)
    fresh[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    left, right, mirrored = left[fresh], right[fresh], mirrored[fresh]
    turned = np.minimum(
        np.bitwise_count(hashes[left] ^ mirrored_hashes[right]), np.bitwise_count(mirrored_hashes[left] ^ hashes[right])
    )
    bits = np.where(mirrored, turned, np.bitwise_count(hashes[left] ^ hashes[right]))
    return NearPairs(left, right, bits, mirrored, cut_short)


def equal_groups(digests: npt.NDArray[np.bytes_], rows: Rows) -> Rows:
    """The first of `rows` with the same digest as each of them; a range of digests is sorted at a time.

    Args:
        digests: shape (m,); a mapped file will do.
        rows: which of them are compared, ascending, shape (n,).
    """
    parts = min(256, -(-len(rows) // PARTITION))
    ranges = np.zeros(len(rows), np.uint8)
    for start in range(0, len(rows) if parts > 1 else 0, PARTITION):
        some = np.array(digests[rows[start : start + PARTITION]])
        leading = some.view(np.uint8).reshape(len(some), -1)[:, 0]
        ranges[start : start + len(some)] = leading.astype(np.intp) * parts >> 8
    groups = np.empty_like(rows)
    for part in range(parts):
        chosen = np.flatnonzero(ranges == part)
        _, first, inverse = np.unique(digests[rows[chosen]], return_index=True, return_inverse=True)
        groups[chosen] = rows[chosen[first[inverse]]]
    return groups


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
    parts = -(-len(queries) // PARTITION)
    keys = _keys(queries, blocks)
    if parts == 1:
        yield _bucketed(queries, keys, n, max_bits)
        return
    for part in range(parts):
        # by the remainder: perceptual hashes lie close together in their ranges
        rows = np.flatnonzero(keys % np.uint64(parts) == part)
        first, second, stopped = _bucketed(queries[rows], keys[rows], n, max_bits, rows)
        yield first, second, stopped


def _bucketed(
    queries: Hashes, keys: Hashes, n: int, max_bits: int, rows: Rows | None = None
) -> tuple[Rows, Rows, bool]:
    """Pairs of `rows` (of positions, where None) of one key whose hashes differ in at most `max_bits` bits.

    The flag says that the comparing stopped at `MAX_BUCKET` neighbours.
    """
    order = np.lexsort((queries, keys))
    keys, hashes = keys[order], queries[order]
    ends = np.searchsorted(keys, keys, side="right")
    order = order if rows is None else rows[order]
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
    for start in range(0, len(left), _LOOK_AT):
        part = slice(start, start + _LOOK_AT)
        a = thumbnails[left[part]].astype(np.int16)
        b = thumbnails[right[part]].astype(np.int16)
        b = np.where(mirrored[part][:, None, None], b[:, :, ::-1], b)
        alike[part] = np.abs(a - b).mean((1, 2)) <= max_levels
    return alike
