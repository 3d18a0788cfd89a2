"""Prototype generation: merge near rows of one class into prototypes.

Rows are merged by Ward's criterion (`ward`) if their soft labels have the same likeliest class. The key and the soft
label of a prototype are the means over its rows; its text, id and gold label are those of the row nearest to the mean.
Each prototype counts as one row. One pass gives all sizes, and sizes are nested: rows that are merged at one size are
merged at all smaller sizes. docs/explanation/condensation.md compares this with other methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kb.index.config import IndexConfig
from ...kb.index.exact_search import unit
from ...kb.knowledge_base import KnowledgeBase
from ...kb.soft_labels import LABEL_LOSS
from ...kb.texts import TextDigests
from ..types import Floats32, Ints
from .ward import Merges, ward

_NO_LENGTH = 1e-6


@dataclass(frozen=True)
class Prototypes:
    """m prototypes.

    Attributes:
        keys: float32 [m, d], L2-normalised.
        soft_labels: float32 [m, c].
        rows: int64 [m], the row that represents each prototype.
    """

    keys: Floats32
    soft_labels: Floats32
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Condensation:
    """n rows and the order in which they are merged.

    Attributes:
        keys: float32 [n, d], L2-normalised.
        soft_labels: float32 [n, c].
        merges: the merges of the rows.
    """

    keys: Floats32
    soft_labels: Floats32
    merges: Merges

    @classmethod
    def of(
        cls, keys: Floats32, soft_labels: Floats32, progress: Callable[[int], object] = lambda _rows: None
    ) -> Condensation:
        """Find the merges; this takes about six seconds for 60,000 rows.

        Args:
            keys: [n, d], not zero.
            soft_labels: [n, c].
            progress: called with the number of finished rows.
        """
        keys = unit(keys)
        return cls(keys, soft_labels, ward(keys, soft_labels.argmax(axis=1), progress))

    @property
    def fewest(self) -> int:
        """Number of prototypes after all possible merges."""
        return self.merges.fewest

    def __len__(self) -> int:
        return len(self.keys)

    def prototypes(self, count: int) -> Prototypes:
        """Merge the rows to ``count`` prototypes, in the order of the first row of each.

        Raises:
            UsageError: ``count`` is less than `fewest` or more than the number of rows.
        """
        clusters = self.merges.clusters(count)
        sizes = np.bincount(clusters)
        means = _means(self.keys, clusters, sizes)
        labels = _means(self.soft_labels, clusters, sizes).astype(np.float32)
        nearness = np.einsum("nd,nd->n", self.keys, means[clusters])
        rows = np.lexsort((-nearness, clusters))[_firsts(sizes)]
        # Keys that cancel out have no mean direction: the representing row's key is used.
        found = np.linalg.norm(means, axis=1, keepdims=True) > _NO_LENGTH
        return Prototypes(unit(np.where(found, means, self.keys[rows])), labels, rows)


def build(
    kb: KnowledgeBase,
    prototypes: Prototypes,
    config: IndexConfig,
    keep_texts: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> KnowledgeBase:
    """Build a knowledge base of prototypes.

    Args:
        kb: the knowledge base whose rows were merged.
        prototypes: prototypes of its rows, or of its first rows.
        config: the index's parameters.
        keep_texts: store the text or digest of each prototype's row, if the knowledge base has texts or digests.
        progress: see `KnowledgeBase.build`.
    """
    rows = prototypes.rows.tolist()
    return KnowledgeBase.build(
        prototypes.keys,
        prototypes.soft_labels,
        config=config,
        gold=np.array([kb.label(row) for row in rows], np.int64),
        ids=np.array([kb.id(row) for row in rows], np.uint64),
        texts=_texts(kb, rows) if keep_texts else None,
        label_loss=LABEL_LOSS,
        progress=progress,
    )


def _texts(kb: KnowledgeBase, rows: Sequence[int]) -> Sequence[str | tuple[str, str]] | TextDigests | None:
    """Return the texts or digests of some rows, as the knowledge base stores them."""
    if kb.digests is not None:
        return kb.digests.take(rows)
    return [text for row in rows if (text := kb.text(row)) is not None] or None


def _means(values: NDArray[np.floating], clusters: Ints, sizes: Ints) -> NDArray[np.float64]:
    """Compute the mean of each cluster's rows, float64 [m, d]."""
    ordered = values[np.argsort(clusters, kind="stable")].astype(np.float64)
    sums: NDArray[np.float64] = np.add.reduceat(ordered, _firsts(sizes), axis=0)
    return sums / sizes[:, np.newaxis]


def _firsts(sizes: Ints) -> Ints:
    """Return the first row of each cluster, for rows sorted by cluster."""
    return np.cumsum(sizes) - sizes
