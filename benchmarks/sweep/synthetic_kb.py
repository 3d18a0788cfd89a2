"""Synthetic knowledge bases of any number of rows, grown from a bundle's own, to measure search in large ones.

The rows are the bundle's own keys first, then copies of them, each turned in a random direction by an angle drawn from
those that lie between a key and its nearest other one in the bundle. (By one angle for all, a row's copies would be
equally far from it, and a search could not tell them apart.) So crowds stay where they are and grow denser, as they do
when more texts of the same kind come in; new kinds of texts, which would make new crowds, are not foreseen. Soft labels
are those of the row that was copied.
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
"""How the keys are stored: the smallest and fastest, so that a million rows can be built while one waits."""

_SAMPLE = 1000  # keys whose nearest others are looked up
_BLOCK = 65_536  # keys turned at once


@dataclass(frozen=True)
class GrownKb:
    """A grown knowledge base, mapped from its files.

    Attributes:
        kb: it.
        build_s: seconds that building its index took.
        bytes: of its files.
    """

    kb: KnowledgeBase
    build_s: float
    bytes: int


class SyntheticKb:
    """The rows of a knowledge base, ready to be grown.

    Args:
        kb: a bundle's, of at least one row.
        seed: of the directions that copies are turned in.

    Attributes:
        nearest: [m], cosines between keys and their nearest other ones, which are those between copies and their keys.
    """

    def __init__(self, kb: KnowledgeBase, seed: int = 0) -> None:
        self._kb, self._seed = kb, seed
        self._keys = kb.keys()
        self._keys /= np.linalg.norm(self._keys, axis=1, keepdims=True)
        some = np.random.default_rng(seed).permutation(len(kb))[:_SAMPLE]
        _, similarities = kb.search_many(self._keys[some], 2)
        # Copies that are alike to the last bit would be one point to a graph.
        self.nearest = similarities[:, -1].clip(0.1, 0.999)

    def grow(
        self, rows: int, folder: Path, threads: int = 1, progress: Callable[[int, int], object] | None = None
    ) -> GrownKb:
        """A knowledge base of ``rows`` rows, written to ``folder`` and mapped from there; some of the own if fewer.

        Of the bundle's index it keeps the connectivity and the breadths; the keys are stored in ``DTYPE``. Texts are
        left out. A million rows of 128 dimensions took 1.6 GB of memory and three minutes of a core's time to build.

        Raises:
            StorageError: the disk refused.
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
        return GrownKb(KnowledgeBase.open(folder, config, self._kb.num_labels), build_s, size)

    def _parents(self, rows: int) -> NDArray[np.int64]:
        """Row numbers [rows], each of the bundle's rows as often as any other, give or take one."""
        own = len(self._kb)
        if rows < own:
            return np.sort(np.random.default_rng(self._seed).permutation(own)[:rows])
        return np.arange(rows) % own

    def _turned(self, parents: NDArray[np.int64]) -> Floats:
        """Their keys [rows, d]; from the second of the same row on, turned."""
        rng = np.random.default_rng(self._seed)
        keys = self._keys[parents]
        for start in range(len(self._keys), len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            directions = rng.standard_normal(block.shape, np.float32)
            directions -= (directions * block).sum(axis=1, keepdims=True) * block  # now at a right angle
            cosines = rng.choice(self.nearest, (len(block), 1))
            directions *= (1 / cosines**2 - 1) ** 0.5 / np.linalg.norm(directions, axis=1, keepdims=True)
            block += directions
        return keys


def recall(kb: KnowledgeBase, queries: Floats, k: int) -> float:
    """The mean share of the k nearest rows that a search finds.

    Args:
        kb: its keys are copied for the time being, 4 bytes a dimension.
        queries: [m, d], of length 1; a few dozen, as each is compared with every key.
        k: rows asked for.
    """
    keys = kb.keys()
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    exact, _ = exact_search(keys, queries, k)
    found, _ = kb.search_many(queries, k)
    return float(np.mean([np.isin(true, rows).mean() for true, rows in zip(exact, found, strict=True)]))
