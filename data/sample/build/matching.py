"""Both classes through the camera many times; what is kept differs in how it was made, not in size or sharpness."""

from typing import Final

import numpy as np
import numpy.typing as npt
from camera import FEATURES, draw, features, shoot
from packages import Pixels

DRAWS: Final = 10
ROUNDS: Final = 8
FOLDS: Final = 4
SHARE: Final = 0.12
HEAVY: Final = 4.0
"""How much more sharpness counts than the rest: what makes a picture again leaves its traces there first."""
SHARPNESS: Final = ("Laplacian", "gradient", "fine detail (top octave)", "middle detail (second octave)", "blockiness")

Floats = npt.NDArray[np.float64]


class Shots:
    """DRAWS pictures of each scene with their features, (n, DRAWS, features)."""

    def __init__(self, pictures: Pixels, seed: int) -> None:
        self.bodies: list[list[bytes]] = []
        numbers = []
        for row, picture in enumerate(pictures):
            rng = np.random.default_rng([seed, row])
            self.bodies.append([shoot(picture, draw(rng)) for _ in range(DRAWS)])
            numbers.append([features(body) for body in self.bodies[-1]])
        self.features = np.array(numbers)


def match(real: Shots, generated: Shots, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The draw kept of each real and of each generated scene, (n,) each; rows belong together.

    At first the two that are nearest each other, then, some rounds, those that a classifier of the features alone can
    tell least from the other class.
    """
    rng = np.random.default_rng(seed)
    both = np.concatenate([real.features, generated.features]).reshape(-1, real.features.shape[2])
    middle, scale = both.mean(0), both.std(0) + 1e-9
    mine, theirs = (real.features - middle) / scale, (generated.features - middle) / scale
    weights = np.array([HEAVY if name in SHARPNESS else 1.0 for name in FEATURES])
    gap = (np.square(mine[:, :, None] - theirs[:, None, :]) * weights).sum(3)
    count = len(gap)
    best = gap.reshape(count, -1).argmin(1)
    kept = [best // DRAWS, best % DRAWS]
    folds = rng.permutation(count) % FOLDS
    for _ in range(ROUNDS):
        told = _margins(mine, theirs, kept, folds)
        for side, most in enumerate((told[0].argmax(1), told[1].argmin(1))):
            # those that pass best for the other class, but few a round: all at once would be told by the opposite
            turn = rng.random(count) < SHARE
            kept[side] = np.where(turn, most, kept[side])
    return kept[0], kept[1]


def _margins(
    mine: Floats, theirs: Floats, kept: list[npt.NDArray[np.int64]], folds: npt.NDArray[np.int64]
) -> list[Floats]:
    """How surely every draw, (n, DRAWS) of each class, is told from the kept ones of the other folds, both classes."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    count, rows = len(folds), np.arange(len(folds))
    x = np.concatenate([mine[rows, kept[0]], theirs[rows, kept[1]]])
    y = np.repeat([0, 1], count)
    score = [np.zeros((count, DRAWS)), np.zeros((count, DRAWS))]
    for fold in range(FOLDS):
        inside = np.tile(folds != fold, 2)
        for model in (HistGradientBoostingClassifier(max_iter=60, max_depth=4), LogisticRegression(max_iter=500)):
            model.fit(x[inside], y[inside])
            for side, all_draws in enumerate((mine, theirs)):
                out = all_draws[folds == fold]
                margin = model.decision_function(out.reshape(-1, out.shape[2])).reshape(-1, DRAWS)
                score[side][folds == fold] += margin
    return score
