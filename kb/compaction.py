"""Fewer rows that answer like many: near rows of one class merged into prototypes.

Rows are merged by Ward's criterion (`ward`), only where their soft labels name the same likeliest class. A prototype's
key is the mean of its rows' keys, its soft label the mean of theirs; its text, id and gold label are those of the row
nearest to the mean. Prototypes count alike, however many rows they stand for: weighing them by their rows brought
answers nearer to the full knowledge base's, and made them worse. At a ninth of the rows this keeps what random rows,
k-means, or prototypes fitted to the full answers (Kusner et al. 2014) lose; docs/performance.md has the comparison.

One pass gives every size. Since what is merged early is merged in all smaller sizes too, sizes are nested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .index import IndexConfig
from .knowledge_base import KnowledgeBase
from .soft_labels import LABEL_LOSS
from .ward import Merges, ward

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_NO_LENGTH = 1e-6


@dataclass(frozen=True)
class Prototypes:
    """A knowledge base's rows, merged to fewer.

    Attributes:
        keys: float32 [m, d], of length 1.
        soft_labels: float32 [m, c].
        rows: int64 [m], the row that stands for each prototype.
        sizes: int64 [m], how many rows it is made of.
        apart: the prototypes of the rows below `Compaction.apart`: so many, and they are the first.
    """

    keys: Floats
    soft_labels: Floats
    rows: Ints
    sizes: Ints
    apart: int

    def __len__(self) -> int:
        return len(self.rows)

    def first(self) -> Prototypes:
        """Those of the rows below `Compaction.apart` alone."""
        some = slice(self.apart)
        return Prototypes(self.keys[some], self.soft_labels[some], self.rows[some], self.sizes[some], self.apart)


@dataclass(frozen=True)
class Compaction:
    """A knowledge base and the order in which its rows are merged.

    Attributes:
        kb: the full knowledge base.
        keys: its keys, float32 [n, d], of length 1.
        merges: of its rows.
        apart: no prototype holds both a row below this and one from it on.
    """

    kb: KnowledgeBase
    keys: Floats
    merges: Merges
    apart: int

    @classmethod
    def of(cls, kb: KnowledgeBase, apart: int, progress: Callable[[int], object] = lambda _rows: None) -> Compaction:
        """Find the merges: some six seconds for 60,000 rows.

        Args:
            kb: the full knowledge base.
            apart: see above; ``len(kb)`` to merge whatever is near.
            progress: called with the number of rows that are done.
        """
        keys = _unit(kb.keys())
        groups = 2 * np.asarray(kb.soft_labels).argmax(axis=1) + (np.arange(len(kb)) >= apart)
        return cls(kb, keys, ward(keys, groups, progress), apart)

    def prototypes(self, count: int) -> Prototypes:
        """The rows merged to ``count``, in the order of each one's first row.

        Raises:
            UsageError: fewer than there are classes, or more than there are rows.
        """
        clusters = self.merges.clusters(count)
        sizes = np.bincount(clusters)
        means = _means(self.keys, clusters, sizes)
        labels = _means(np.asarray(self.kb.soft_labels), clusters, sizes).astype(np.float32)
        nearness = np.einsum("nd,nd->n", self.keys, means[clusters])
        rows = np.lexsort((-nearness, clusters))[_firsts(sizes)]
        # Keys that cancel out have no mean direction: their row's own stands for them.
        found = np.linalg.norm(means, axis=1, keepdims=True) > _NO_LENGTH
        apart = int(clusters[: self.apart].max(initial=-1)) + 1
        return Prototypes(_unit(np.where(found, means, self.keys[rows])), labels, rows, sizes, apart)

    def build(
        self,
        prototypes: Prototypes,
        config: IndexConfig,
        keep_texts: bool = True,
        label_loss: float = LABEL_LOSS,
        progress: Callable[[int, int], object] | None = None,
    ) -> KnowledgeBase:
        """A knowledge base of the prototypes.

        Args:
            prototypes: of this compaction.
            config: the index's parameters.
            keep_texts: store the text of each prototype's row, where there are texts.
            label_loss: as of `KnowledgeBase.build`.
            progress: as of `KnowledgeBase.build`.
        """
        rows = prototypes.rows.tolist()
        texts = [text for row in rows if (text := self.kb.text(row)) is not None] if keep_texts else []
        return KnowledgeBase.build(
            prototypes.keys,
            prototypes.soft_labels,
            config=config,
            gold=np.array([self.kb.label(row) for row in rows], np.int64),
            ids=np.array([self.kb.id(row) for row in rows], np.uint64),
            texts=texts or None,
            label_loss=label_loss,
            progress=progress,
        )


def _means(values: NDArray[np.floating], clusters: Ints, sizes: Ints) -> NDArray[np.float64]:
    """The mean of each cluster's rows, float64 [m, d]."""
    if not len(values):
        return values.astype(np.float64)
    ordered = values[np.argsort(clusters, kind="stable")].astype(np.float64)
    sums: NDArray[np.float64] = np.add.reduceat(ordered, _firsts(sizes), axis=0)
    return sums / sizes[:, np.newaxis]


def _firsts(sizes: Ints) -> Ints:
    """Where each cluster begins, when rows are in the order of their clusters."""
    return np.cumsum(sizes) - sizes


def _unit(keys: NDArray[np.floating]) -> Floats:
    """The same directions at length 1."""
    unit: Floats = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    return unit
