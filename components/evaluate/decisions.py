"""What the three decisions come to on images of the model's own kind, by score and domain as the server has them."""

from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from components.artifacts.evaluation import DecisionFigures, Metric
from components.evaluate.intervals import Counts, Mask, proportion
from components.evaluate.metrics import Judged
from serving.detector.conclusion import DECISIONS, DecisionBands
from serving.detector.domain import SignalName, TrainedDomain

SIGNALS: Final[tuple[SignalName, ...]] = get_args(SignalName)


@dataclass(frozen=True)
class Decided:
    """One decision for each image, without what its file says of itself."""

    judged: Judged
    bands: DecisionBands
    outside_by: Mask
    """Which of `SIGNALS` put each image outside the domain, (signals, n)."""
    domain: TrainedDomain | None
    """None: the bundle is older than domains, and nothing is known to be outside."""

    @property
    def outside(self) -> Mask:
        """Outside by any signal, (n,)."""
        return np.asarray(self.outside_by.any(axis=0), dtype=bool)

    @property
    def decisions(self) -> npt.NDArray[np.object_]:
        """One of `DECISIONS` for each image, (n,)."""
        p = self.judged.probabilities
        real, review, ai = DECISIONS
        found = np.full(len(p), review, dtype=object)
        found[p >= self.bands.ai_from] = ai
        found[p < self.bands.real_below] = real
        found[self.outside] = review
        return found

    @property
    def outside_names(self) -> list[str] | list[None]:
        """The signals that put each image outside, parted by blanks, (n,); None where no domain is known."""
        if self.domain is None:
            return [None] * len(self.judged.positive)
        return [" ".join(np.array(SIGNALS)[column].tolist()) for column in self.outside_by.T]

    def figures(self) -> DecisionFigures:
        """Every share with its interval."""
        promised = self.bands.alpha_real, self.bands.alpha_ai
        outside_by = None if self.domain is None else self.outside_by
        return figures_of(self.judged.positive, self.judged.units, self.decisions, outside_by, promised)


def figures_of(
    positive: Mask,
    units: Counts,
    decisions: npt.NDArray[np.object_],
    outside_by: Mask | None,
    promised: tuple[float | None, float | None],
) -> DecisionFigures:
    """Shares of decisions and of images outside, each with its interval.

    Args:
        positive: true class is `ai_generated`, (n,).
        units: which images belong together, (n,).
        decisions: one of `DECISIONS` for each image, (n,).
        outside_by: which of `SIGNALS` put each image outside, (signals, n); None where no domain is known.
        promised: largest shares of real and of generated photos decided wrongly; None where nothing is promised.
    """
    real, review, ai = DECISIONS

    def share(hits: npt.ArrayLike, of: Mask | None = None) -> Metric | None:
        rows = np.ones(len(positive), dtype=bool) if of is None else of
        return proportion(np.asarray(hits, dtype=bool)[rows], units[rows])

    by = {} if outside_by is None else dict(zip(SIGNALS, outside_by, strict=True))
    return DecisionFigures(
        n=len(decisions),
        promised_real=promised[0],
        promised_ai=promised[1],
        real_called_ai=share(decisions == ai, ~positive),
        ai_called_real=share(decisions == real, positive),
        to_review=share(decisions == review),
        outside_domain=None if outside_by is None else share(outside_by.any(axis=0)),
        outside_by={name: found for name, hits in by.items() if (found := share(hits)) is not None},
    )
