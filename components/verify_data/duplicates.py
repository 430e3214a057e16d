"""Near duplicates among many images without comparing all with all: banded Hamming search, then the pixels."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.intp]

HASH_BITS: Final = 64
MAX_BUCKET: Final = 4096
"""An image is compared with at most so many others that share one band of its hash; more share a band only in
degenerate data (thousands of almost equal pictures), where this keeps time bounded."""
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
    parts = [_band(queries, n, band, max_bits) for band in _bands(max_bits + 1)]
    cut_short = any(part[2] for part in parts)
    if not any(len(part[0]) for part in parts):
        none = np.empty(0, np.intp)
        return NearPairs(none, none, np.empty(0, np.uint8), np.empty(0, bool), cut_short)
    first = np.concatenate([part[0] for part in parts])
    second = np.concatenate([part[1] for part in parts])
    mirrored = (first >= n) | (second >= n)
    left, right = np.minimum(first % n, second % n), np.maximum(first % n, second % n)
    keys = np.unique((left * n + right) * 2 + mirrored)
    keys = keys[(keys // 2) // n != (keys // 2) % n]
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


def _bands(count: int) -> list[tuple[int, int]]:
    """(shift, width) of `count` bands over 64 bits. Hashes within count - 1 bits agree in one band at least."""
    edges = np.linspace(0, HASH_BITS, count + 1).round().astype(int)
    return [(low, high - low) for low, high in pairwise(edges.tolist())]


def _band(queries: Hashes, n: int, band: tuple[int, int], max_bits: int) -> tuple[Rows, Rows, bool]:
    """Pairs of positions in `queries` that agree in a band and differ in at most `max_bits` bits in all.

    The flag says that the comparing stopped at `MAX_BUCKET` neighbours.
    """
    shift, width = band
    mask = np.uint64(2**width - 1) if width < HASH_BITS else np.uint64(2**64 - 1)
    keys = (queries >> np.uint64(shift)) & mask
    order = np.lexsort((queries, keys))
    keys, hashes = keys[order], queries[order]
    ends = np.searchsorted(keys, keys, side="right")
    del keys
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
