"""How sure a figure is: Wilson intervals of proportions and stratified bootstraps, all draws at once.

Images of one unit (one source photograph, or copies of one picture) are no independent witnesses: proportions count
what the units are worth, and bootstraps draw whole units.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from components.artifacts.evaluation import Metric

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Z95: Final = 1.959963984540054
PERCENTILES: Final = (2.5, 97.5)
CHUNK_CELLS: Final = 2_000_000
"""Draws times images held at once: some 50 MB of working memory, whatever the test set's size."""


def wilson(successes: float, n: float) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (E. B. Wilson, 1927); `n` at least 1."""
    p = successes / n
    z2 = Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # at 0 and n the bound is the point itself; rounding must not put it on the other side
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def proportion(hits: Mask, units: Counts) -> Metric | None:
    """Share of hits with its Wilson interval; None when there is nothing to count.

    Args:
        hits: (n,).
        units: which images belong together, (n,); equal numbers are one unit.
    """
    n = len(hits)
    if n == 0:
        return None
    value = int(hits.sum()) / n
    worth = worth_of(hits, units)
    low, high = wilson(value * worth, worth)
    return Metric(value=value, low=min(low, value), high=max(high, value))


def worth_of(hits: Mask, units: Counts) -> float:
    """How many independent images know a share as well as these do; n where every image is a unit of its own.

    The images over the design effect of their units, and a share of that where few units know their own spread badly
    (E. L. Korn and B. I. Graubard, 1998). Where all agree, units are taken to be as much alike as they can be.
    """
    n, unit = len(hits), np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(unit)
    many = len(sizes)
    if many == n:
        return float(n)
    share = float(hits.mean())
    if share in (0.0, 1.0) or many == 1:
        return float(n * n / np.square(sizes).sum())
    spread = np.square(np.bincount(unit, weights=hits) - sizes * share).sum() * many / (many - 1)
    design = max(1.0, float(spread) / (n * share * (1 - share)))
    known = float(stdtrit(n - 1, 0.975) / stdtrit(many - 1, 0.975)) ** 2
    return max(1.0, n / design * known)


def strata_of(positive: Mask, units: Counts) -> tuple[Counts, list[Counts]]:
    """The unit of each image as a number from 0, (n,), and the units of each composition: one class, other, both."""
    unit = np.unique(units, return_inverse=True)[1]
    ai, images = np.bincount(unit, weights=positive), np.bincount(unit)
    kind = np.where(ai == images, 0, np.where(ai == 0, 1, 2))
    return unit, [rows for k in range(3) if len(rows := np.flatnonzero(kind == k))]


def stratified_counts(positive: Mask, units: Counts, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each image is drawn, when whole units are resampled within their composition of classes.

    Args:
        positive: class of each image, (n,).
        units: which images belong together, (n,).
        draws: resamples in all.
        rng: source of chance.

    Yields:
        (draws of this chunk, n) counts; where no unit has both classes, each row sums to the class sizes.
    """
    unit, strata = strata_of(positive, units)
    many = int(unit.max(initial=-1)) + 1
    chunk = max(1, min(draws, CHUNK_CELLS // max(len(unit), 1)))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        counts = np.empty((size, many))
        for rows in strata:
            width = len(rows)
            picks = rng.integers(0, width, (size, width)) + np.arange(size)[:, None] * width
            counts[:, rows] = np.bincount(picks.ravel(), minlength=size * width).reshape(size, width)
        yield counts[:, unit]


def interval(point: float, draws: Floats, *, centred: bool = False) -> Metric:
    """A figure with the percentile interval of its bootstrap draws.

    Args:
        point: the figure on the images themselves.
        draws: the figure on each resample.
        centred: take the draws' bias off first; for figures that resampling inflates, such as the calibration error.
    """
    low, high = np.percentile(draws, PERCENTILES)
    if centred:
        bias = float(draws.mean()) - point
        low, high = max(0.0, low - bias), high - bias
    return Metric(value=point, low=min(float(low), point), high=max(float(high), point))
