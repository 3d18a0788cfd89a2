"""Which keys are together: centres of keys by k-means, their division into shards, and the order of keys in a shard."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact_search import Floats, Ints, unit
from .lists import means_of, nearest_mean
from .shards import Centres

CENTRES_PER_SHARD, FEWEST_CENTRES, MOST_CENTRES = 64, 64, 4096
SAMPLE_PER_CENTRE = 64
"""Keys of the sample for each centre."""

_BLOCK = 65_536  # keys multiplied together
_LEAF = 64  # keys that are not divided any more: with int8 keys of 128 components two pages of memory
_DIRECTION_SAMPLE, _STEPS = 512, 4  # keys of the sample, and steps, that find the widest direction


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


def near_order(keys: NDArray[Any]) -> Ints:
    """An order of keys in which near ones are mostly near each other; the same keys give the same order.

    The keys are halved along their widest direction, and each half again. A graph whose rows have this order is built
    and searched faster (docs/scale.md). (Coleman et al., NeurIPS 2022, reorder a finished graph for the caches.)

    Args:
        keys: [n, d], int8 or floating, not infinite.

    Returns:
        int64 [n], the number of the first key, of the second, and so on.
    """
    order, sorted_keys = np.arange(len(keys)), keys.copy()
    rng = np.random.default_rng(0)
    waiting = [(0, len(keys))]
    while waiting:
        first, end = waiting.pop()
        if end - first <= _LEAF:
            continue
        part, middle = sorted_keys[first:end], (end - first) // 2
        along = _projected(part, _widest(part[rng.integers(0, len(part), _DIRECTION_SAMPLE)].astype(np.float32)))
        halves = np.argpartition(along, middle)
        order[first:end], sorted_keys[first:end] = order[first:end][halves], part[halves]
        waiting += [(first, first + middle), (first + middle, end)]
    return order


def _widest(some: Floats) -> Floats:
    """Approximately the direction in which keys vary most, by power iteration from the key farthest from their mean."""
    some = some - some.mean(axis=0)
    direction: Floats = some[np.einsum("ij,ij->i", some, some).argmax()]
    for _ in range(_STEPS):
        direction = direction / max(float(np.linalg.norm(direction)), 1e-30)
        direction = some.T @ (some @ direction)
    return direction


def _projected(keys: NDArray[Any], direction: Floats) -> Floats:
    blocks = [keys[start : start + _BLOCK].astype(np.float32) @ direction for start in range(0, len(keys), _BLOCK)]
    return np.concatenate(blocks)


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
