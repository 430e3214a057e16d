"""Which training images each of several machines reads and keeps: a part of its own, the same in every epoch."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from components.train.pairs import paired_order

Rows = npt.NDArray[np.int64]

_DEALT: Final = 2**32 - 1
"""Key of the draw that deals rows to machines, beside those of the epochs."""
_RUN: Final = 4096
"""Neighbouring rows that go to one machine: as many as a row group of the packed files, which few others then read."""
_RUNS: Final = 64
"""As many runs for each machine at least, however few rows there are: a part is a sample of the whole."""


@dataclass(frozen=True, slots=True)
class Part:
    """One machine's place among those that share a training's data."""

    machine: int = 0
    machines: int = 1
    processes: int = 1
    """On each machine."""

    @property
    def is_first(self) -> bool:
        """Whether this machine exports the model, for which it keeps the whole validation split."""
        return self.machine == 0


def rows_of_part(sources: npt.NDArray[np.str_] | None, labels: npt.NDArray[np.float32], seed: int, part: Part) -> Rows:
    """Positions of this machine's images in ascending order: disjoint parts, all of equal length; alone, everything.

    Args:
        sources: of each image, (n,): those of one source stay together two by two; None: whatever their source, rows
            that lie together go together.
        labels: 1 is ai_generated, (n,).
        seed: of the training.
        part: which.
    """
    n, machines = len(labels), part.machines
    if machines == 1:
        return np.arange(n)
    key = (seed, _DEALT)
    if sources is not None:
        return np.sort(paired_order(sources, labels, key, part.machine, machines))
    run = max(1, min(_RUN, n // (machines * _RUNS)))
    starts = np.random.default_rng(key).permutation(-(-n // run)) * run
    order = (starts[:, None] + np.arange(run)).ravel()
    share = n // machines
    mine: Rows = np.sort(order[order < n][part.machine * share : (part.machine + 1) * share])
    return mine


def validated_here(n: int, part: Part) -> Rows:
    """Which of `n` validation images this machine keeps: the first all of them, another what its processes score.

    Of all processes together, the one with rank r scores the images r, r + their number, ...
    """
    rows: Rows = np.arange(n)
    if not part.is_first:
        rows = rows[rows % (part.machines * part.processes) // part.processes == part.machine]
    return rows


def scored_by(kept: int, part: Part, local_rank: int) -> Rows:
    """Positions, among the images that this machine keeps, of those that one of its processes scores."""
    everybody = part.machines * part.processes if part.is_first else part.processes
    return np.arange(kept)[local_rank::everybody]
