"""Two models on the same images: paired tests and paired intervals.

Resampling whole units (an image, or all images of one photograph) and resampling the counts of units of which both
models said the same is the same experiment, so each bootstrap here is one multinomial draw per composition of classes:
ten thousand draws cost milliseconds at any size of the test set.
"""

from collections.abc import Sequence

import numpy as np

from components.artifacts.evaluation import Comparison, Metric
from components.evaluate.config import EvaluateConfig
from components.evaluate.intervals import Counts, Floats, interval, strata_of
from components.evaluate.metrics import Judged, score_set
from components.evaluate.slices import Group

BOTH, ONLY_FIRST, ONLY_SECOND, NEITHER = range(4)
"""Cells of the paired table: which of the two models was right."""


def compare(
    candidate: Judged,
    champion: Judged,
    parts: Sequence[Group],
    config: EvaluateConfig,
    *,
    champion_version: str,
    identical: bool,
    distinct: int | None = None,
) -> Comparison:
    """Candidate against champion; positive differences favour the candidate."""
    table = paired_table(candidate, champion)
    only_candidate, only_champion = int(table[:, ONLY_FIRST].sum()), int(table[:, ONLY_SECOND].sum())
    return Comparison(
        champion_version=champion_version,
        n=len(candidate.positive),
        champion=score_set(champion, parts, config, distinct),
        accuracy_difference=paired_accuracy(candidate, champion, config),
        f1_difference=paired_f1(candidate, champion, config),
        only_candidate_right=only_candidate,
        only_champion_right=only_champion,
        mcnemar_p=mcnemar_exact(unit_differences(candidate, champion)),
        slice_differences={
            part.key: paired_accuracy(candidate.take(part.rows), champion.take(part.rows), config) for part in parts
        },
        identical=identical,
    )


def unit_differences(first: Judged, second: Judged) -> Counts:
    """Images of each unit that only the first model has right less those that only the second has, (units,)."""
    unit = np.unique(first.units, return_inverse=True)[1]
    gain = first.right.astype(np.int64) - second.right.astype(np.int64)
    found: Counts = np.bincount(unit, weights=gain).astype(np.int64)
    return found


def mcnemar_exact(differences: Counts) -> float:
    """Two-sided exact McNemar test (Q. McNemar, 1947) of units: the chance that they differ so unevenly or more.

    Were the models alike, each unit's difference would as likely be for the one as for the other. The sums that this
    makes of all units are counted out; where each unit is one image, this is the binomial test of discordant images.

    Args:
        differences: of each unit, images that only the first has right less those that only the second has, (units,).
    """
    from scipy.stats import binom

    sizes, times = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)
    for size, many in zip(sizes.tolist(), times.tolist(), strict=True):
        # so many units of one size add up to `size` times -many, 2 - many, .., many
        steps = np.zeros(2 * size * many + 1)
        steps[:: 2 * size] = binom.pmf(np.arange(many + 1), many, 0.5)
        chances = np.convolve(chances, steps)
    reach = len(chances) // 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[sums >= abs(int(differences.sum()))].sum()))


def paired_table(first: Judged, second: Judged) -> Counts:
    """How many images of each class fall into each cell of the paired table: int64 (2 classes, 4 cells)."""
    return np.bincount(_cells(first, second), minlength=8).reshape(2, 4)


def _cells(first: Judged, second: Judged) -> Counts:
    """Class and cell of the paired table of each image as one number below 8, (n,)."""
    cells = np.where(
        first.right, np.where(second.right, BOTH, ONLY_FIRST), np.where(second.right, ONLY_SECOND, NEITHER)
    )
    return first.positive * 4 + cells


def paired_accuracy(first: Judged, second: Judged, config: EvaluateConfig) -> Metric:
    """Accuracy of the first minus that of the second on the same images, with its paired interval."""
    point = _accuracy_difference(paired_table(first, second)[:, None, :])
    return interval(float(point[0]), _accuracy_difference(_draws(first, second, config)))


def paired_f1(first: Judged, second: Judged, config: EvaluateConfig) -> Metric:
    """F1 of the first minus that of the second on the same images, with its paired interval."""
    point = _f1_difference(paired_table(first, second)[:, None, :])
    return interval(float(point[0]), _f1_difference(_draws(first, second, config)))


def _draws(first: Judged, second: Judged, config: EvaluateConfig) -> Counts:
    """Resampled tables, (2 classes, draws, 4 cells): each composition of classes keeps its number of units."""
    rng = np.random.default_rng(config.seed)
    unit, strata = strata_of(first.positive, first.units)
    many = int(unit.max(initial=-1)) + 1
    tables = np.bincount(unit * 8 + _cells(first, second), minlength=many * 8).reshape(many, 8)
    drawn = np.zeros((config.paired_draws, 8), dtype=np.int64)
    for rows in strata:
        kinds, times = np.unique(tables[rows], axis=0, return_counts=True)
        drawn += rng.multinomial(len(rows), times / len(rows), size=config.paired_draws) @ kinds
    return drawn.reshape(-1, 2, 4).transpose(1, 0, 2)


def _accuracy_difference(tables: Counts) -> Floats:
    cells = tables.sum(axis=0)
    difference: Floats = (cells[:, ONLY_FIRST] - cells[:, ONLY_SECOND]) / cells.sum(axis=1)
    return difference


def _f1_difference(tables: Counts) -> Floats:
    return _f1(tables, ONLY_FIRST) - _f1(tables, ONLY_SECOND)


def _f1(tables: Counts, alone: int) -> Floats:
    real, ai = tables
    hits = ai[:, BOTH] + ai[:, alone]
    wrong = real.sum(axis=1) - real[:, BOTH] - real[:, alone] + ai.sum(axis=1) - hits
    # without positives and without alarms there is nothing to find: F1 is 0 by the same convention as precision
    f1: Floats = 2 * hits / np.maximum(2 * hits + wrong, 1)
    return f1
