"""Two models on the same images: paired tests and paired intervals.

Resampling whole images and resampling the counts of what both models said of them is the same experiment, so each
bootstrap here is one multinomial draw per class: ten thousand draws cost milliseconds at any size of the test set.
"""

from collections.abc import Sequence

import numpy as np

from components.artifacts.evaluation import Comparison, Metric
from components.evaluate.config import EvaluateConfig
from components.evaluate.intervals import Counts, Floats, interval
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
) -> Comparison:
    """Candidate against champion; positive differences favour the candidate."""
    table = paired_table(candidate, champion)
    only_candidate, only_champion = int(table[:, ONLY_FIRST].sum()), int(table[:, ONLY_SECOND].sum())
    return Comparison(
        champion_version=champion_version,
        n=len(candidate.positive),
        champion=score_set(champion, parts, config),
        accuracy_difference=paired_accuracy(candidate, champion, config),
        f1_difference=paired_f1(candidate, champion, config),
        only_candidate_right=only_candidate,
        only_champion_right=only_champion,
        mcnemar_p=mcnemar_exact(only_candidate, only_champion),
        slice_differences={
            part.key: paired_accuracy(candidate.take(part.rows), champion.take(part.rows), config) for part in parts
        },
        identical=identical,
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test (Q. McNemar, 1947): the chance of so uneven a split of the discordant images."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def paired_table(first: Judged, second: Judged) -> Counts:
    """How many images of each class fall into each cell of the paired table: int64 (2 classes, 4 cells)."""
    cells = np.where(
        first.right, np.where(second.right, BOTH, ONLY_FIRST), np.where(second.right, ONLY_SECOND, NEITHER)
    )
    return np.bincount(first.positive * 4 + cells, minlength=8).reshape(2, 4)


def paired_accuracy(first: Judged, second: Judged, config: EvaluateConfig) -> Metric:
    """Accuracy of the first minus that of the second on the same images, with its paired interval."""
    table = paired_table(first, second)
    return interval(float(_accuracy_difference(table[:, None, :])[0]), _accuracy_difference(_draws(table, config)))


def paired_f1(first: Judged, second: Judged, config: EvaluateConfig) -> Metric:
    """F1 of the first minus that of the second on the same images, with its paired interval."""
    table = paired_table(first, second)
    return interval(float(_f1_difference(table[:, None, :])[0]), _f1_difference(_draws(table, config)))


def _draws(table: Counts, config: EvaluateConfig) -> Counts:
    """Resampled tables, (2 classes, draws, 4 cells): each class keeps its size."""
    rng = np.random.default_rng(config.seed)
    drawn = np.zeros((2, config.paired_draws, 4), dtype=np.int64)
    for label, counts in enumerate(table):
        if counts.sum():
            drawn[label] = rng.multinomial(counts.sum(), counts / counts.sum(), size=config.paired_draws)
    return drawn


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
