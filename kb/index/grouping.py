"""Centres of keys by k-means, and their division into shards of the same size, near centres together."""

from __future__ import annotations

import numpy as np

from .exact_search import Floats, Ints, unit
from .lists import means_of, nearest_mean
from .shards import Centres

CENTRES_PER_SHARD, FEWEST_CENTRES, MOST_CENTRES = 64, 64, 4096
SAMPLE_PER_CENTRE = 64
"""Keys of the sample for each centre."""


def centre_count(shards: int) -> int:
    """The number of centres for so many shards."""
    return min(max(CENTRES_PER_SHARD * shards, FEWEST_CENTRES), MOST_CENTRES)


def grouped(sample: Floats, shards: int) -> Centres:
    """Centres of a sample of the keys, and shards that get about the same number of the keys each.

    Args:
        sample: [n, d], of length 1.
        shards: the number of shards, at least 1; fewer where the sample has fewer different keys.
    """
    count = min(centre_count(shards), len(np.unique(sample, axis=0)))
    centres = unit(means_of(sample, np.arange(len(sample)), count))
    sizes = np.bincount(nearest_mean(sample, np.arange(len(sample)), centres), minlength=count)
    shard = np.zeros(count, np.int32)
    _divide(centres, sizes, np.arange(count), min(shards, count), 0, shard)
    return Centres(centres, shard)


def _divide(centres: Floats, sizes: Ints, some: Ints, shards: int, first: int, shard: np.ndarray) -> None:
    """Give some centres the shards from ``first`` on: cut them along their widest direction, then each side again."""
    if shards == 1:
        shard[some] = first
        return
    left = shards // 2
    spread = (centres[some] - np.average(centres[some], axis=0)) * np.sqrt(sizes[some] + 1)[:, np.newaxis]
    along = centres[some] @ np.linalg.svd(spread, full_matrices=False)[2][0]
    order = some[np.argsort(along, kind="stable")]
    share = np.cumsum(sizes[order]) / max(sizes[order].sum(), 1)
    cut = int(np.clip(np.searchsorted(share, left / shards) + 1, left, len(order) - (shards - left)))
    _divide(centres, sizes, order[:cut], left, first, shard)
    _divide(centres, sizes, order[cut:], shards - left, first + left, shard)
