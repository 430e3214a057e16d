"""How sure a figure is: Wilson intervals of proportions and stratified bootstraps, all draws at once.

Images are taken as independent. Where many come from one photograph the true intervals are wider.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from components.artifacts.evaluation import Metric

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

Z95: Final = 1.959963984540054
PERCENTILES: Final = (2.5, 97.5)
CHUNK_CELLS: Final = 2_000_000
"""Draws times images held at once: some 50 MB of working memory, whatever the test set's size."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (E. B. Wilson, 1927); `n` at least 1."""
    p = successes / n
    z2 = Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # at 0 and n the bound is the point itself; rounding must not put it on the other side
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def proportion(successes: int, n: int) -> Metric | None:
    """A proportion with its Wilson interval; None when nothing was counted."""
    if n == 0:
        return None
    low, high = wilson(int(successes), int(n))
    return Metric(value=int(successes) / int(n), low=low, high=high)


def stratified_counts(
    positive: npt.NDArray[np.bool_], draws: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.float64]]:
    """How often each image is drawn, when each class is resampled with replacement to its own size.

    Args:
        positive: class of each image, (n,).
        draws: resamples in all.
        rng: source of chance.

    Yields:
        (draws of this chunk, n) counts; each row sums to the class sizes within the classes.
    """
    n = len(positive)
    strata = [rows for rows in (np.flatnonzero(positive), np.flatnonzero(~positive)) if len(rows)]
    chunk = max(1, min(draws, CHUNK_CELLS // max(n, 1)))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        counts = np.empty((size, n))
        for rows in strata:
            width = len(rows)
            picks = rng.integers(0, width, (size, width)) + np.arange(size)[:, None] * width
            counts[:, rows] = np.bincount(picks.ravel(), minlength=size * width).reshape(size, width)
        yield counts


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
