"""Synthetic knowledge bases of any size, made from a bundle's rows, to measure the search in large indexes.

The first rows are the bundle's own keys. The others are copies, each rotated in a random direction by an angle drawn
from the angles between a key and its nearest other key in the bundle. (With one angle for all, the copies of a row
would be equally far from it, and a search could not rank them.) So clusters become denser, the same as with more texts
of the same kind; there are no new clusters. A copy has the soft labels of its original.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from reaugkd.kb.index.exact_search import exact_search
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.knowledge_base import ROW_DTYPE, KnowledgeBase
from reaugkd.kb.soft_labels import decode

Floats = NDArray[np.float32]

DTYPE = "i8"
"""The stored type of the keys: the smallest and fastest, so that a million rows take minutes to build."""

_SAMPLE = 1000  # keys whose nearest other key is searched
_BLOCK = 65_536  # keys rotated at once


@dataclass(frozen=True)
class EnlargedKb:
    """A synthetic knowledge base, mapped from its files.

    Attributes:
        kb: the knowledge base.
        build_s: time to build the index, seconds.
        bytes: size of the files.
    """

    kb: KnowledgeBase
    build_s: float
    bytes: int


class SyntheticKb:
    """Makes larger knowledge bases from the rows of one.

    Args:
        kb: a bundle's knowledge base with at least one row.
        seed: seed of the rotations.
        rows: number of its rows, the first ones, that are used; None for all.

    Attributes:
        nearest: cosines between keys and their nearest other key, [m]; copies have the same cosines to their originals.
    """

    def __init__(self, kb: KnowledgeBase, seed: int = 0, rows: int | None = None) -> None:
        self._kb, self._seed = kb, seed
        self._keys = kb.keys()[:rows]
        self._keys /= np.linalg.norm(self._keys, axis=1, keepdims=True)
        some = np.random.default_rng(seed).permutation(len(self._keys))[:_SAMPLE]
        _, similarities = kb.search_many(self._keys[some], 2)
        # Identical copies would be a single point of the graph.
        self.nearest = similarities[:, -1].clip(0.1, 0.999)

    def enlarge(
        self, rows: int, folder: Path, threads: int = 1, progress: Callable[[int, int], object] | None = None
    ) -> EnlargedKb:
        """Write a knowledge base of ``rows`` rows to ``folder``, and map it; a smaller one is a sample of the original.

        The index has the connectivity and the expansions of the bundle's index; the keys are stored in ``DTYPE``. There
        are no texts. A million rows of 128 dimensions took 1.6 GB of memory and three minutes on one core.

        Raises:
            StorageError: the files cannot be written.
        """
        parents = self._parents(rows)
        config = replace(self._kb.config, dtype=DTYPE)
        began = perf_counter()
        index = VectorIndex.build(self._turned(parents), config, threads=threads, progress=progress)
        build_s = perf_counter() - began
        labels = decode(self._kb.soft_labels.stored.take(parents, 0), self._kb.num_labels)
        table = np.zeros(rows, ROW_DTYPE)
        table["id"], table["label"] = np.arange(rows), -1
        KnowledgeBase(index, labels, table, b"").save(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        return EnlargedKb(KnowledgeBase.open(folder, config, self._kb.num_labels), build_s, size)

    def _parents(self, rows: int) -> NDArray[np.int64]:
        """Return the originals' row numbers [rows]; each appears equally often, within one."""
        own = len(self._keys)
        if rows < own:
            return np.sort(np.random.default_rng(self._seed).permutation(own)[:rows])
        return np.arange(rows) % own

    def _turned(self, parents: NDArray[np.int64]) -> Floats:
        """Return the keys [rows, d]; each is rotated, except the first of an original."""
        rng = np.random.default_rng(self._seed)
        keys = self._keys[parents]
        for start in range(len(self._keys), len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            directions = rng.standard_normal(block.shape, np.float32)
            directions -= (directions * block).sum(axis=1, keepdims=True) * block  # orthogonal to the key
            cosines = rng.choice(self.nearest, (len(block), 1))
            directions *= (1 / cosines**2 - 1) ** 0.5 / np.linalg.norm(directions, axis=1, keepdims=True)
            block += directions
        return keys


def recall(kb: KnowledgeBase, queries: Floats, k: int) -> float:
    """Compute the mean share of the k nearest rows that a search finds.

    Args:
        kb: the knowledge base; its keys are copied as float32 meanwhile.
        queries: [m, d], of length 1; each is compared with every key.
        k: number of neighbours.
    """
    keys = kb.keys()
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    exact, _ = exact_search(keys, queries, k)
    found, _ = kb.search_many(queries, k)
    return float(np.mean([np.isin(true, rows).mean() for true, rows in zip(exact, found, strict=True)]))
