"""Order of an epoch in which a photo and what was generated from it are seen side by side."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def paired_order(
    sources: npt.NDArray[np.str_], labels: npt.NDArray[np.float32], key: tuple[int, int], rank: int, world_size: int
) -> Rows:
    """This rank's rows of an epoch, two by two: as many as possible are a real photo and a generated one of its source.

    An even batch then never parts a pair. What has no partner is put together in chance's order; the last of an odd
    number is left out.

    Args:
        sources: of each row, (n,); rows of the source "" have no partner.
        labels: 1 is ai_generated, (n,).
        key: seed and epoch.
        rank: of this process.
        world_size: processes that share the epoch.
    """
    rng = np.random.default_rng(key)
    order = rng.permutation(len(labels))
    source, generated = np.unique(sources, return_inverse=True)[1][order], labels[order] == 1
    # the k-th real photo of a source and its k-th generated one belong together, by chance's order
    name = source * len(order) + _places(source * 2 + generated)
    named = sources[order] != ""
    real, fake = np.flatnonzero(named & ~generated), np.flatnonzero(named & generated)
    _, at, of = np.intersect1d(name[real], name[fake], assume_unique=True, return_indices=True)
    pairs = np.stack([real[at], fake[of]], axis=1)
    alone = np.setdiff1d(np.arange(len(order)), pairs.ravel())
    units = np.concatenate([pairs, alone[: len(alone) // 2 * 2].reshape(-1, 2)])
    units = order[units[rng.permutation(len(units))]]
    shard: Rows = units[: len(units) // world_size * world_size][rank::world_size].ravel()
    return shard


def _places(groups: Rows) -> Rows:
    """How many of the same group stand before each, (n,)."""
    sorted_ = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[sorted_], prepend=-1))
    places = np.empty(len(groups), dtype=np.int64)
    places[sorted_] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return places
