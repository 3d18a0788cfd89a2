"""Compaction: merge a knowledge base and its edits into a new knowledge base without the removed rows.

Rows keep their order and ids. The same rows give the same files, byte for byte, after one compaction or several.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..index.exact_search import EfSearchChoice, least_ef_search, unit
from ..index.hnsw import VectorIndex
from ..index.lists import chosen_lists
from ..knowledge_base import ROW_DTYPE, KnowledgeBase, text_line
from ..soft_labels import edited
from .overlay import OverlayKnowledgeBase

Floats = NDArray[np.float32]

MOST_QUERIES = 256
_NOISE = 0.5  # length of the noise that turns a key of length 1 into a query


def merge_edits(kb: OverlayKnowledgeBase, progress: Callable[[int, int], object] | None = None) -> KnowledgeBase:
    """Build a knowledge base of the rows that are not removed.

    Args:
        kb: the knowledge base with its edits.
        progress: same as `VectorIndex.build`.
    """
    base = len(kb.base)
    rows = np.flatnonzero(kb.alive)
    below, above = rows[rows < base], rows[rows >= base]
    keys = np.concatenate([kb.base.keys()[below], *(kb.key(int(row))[np.newaxis] for row in above)])
    labels = edited(kb.base.soft_labels, below, _changed(kb, below), kb.soft_labels.take(above), kb.num_labels)
    table = np.zeros(len(rows), ROW_DTYPE)
    table["id"] = [kb.id(int(row)) for row in rows]
    table["label"] = [kb.label(int(row)) for row in rows]
    texts = [kb.text(int(row)) for row in rows]
    lines = [text_line(text) for text in texts if text is not None]
    if lines:
        table["text_end"] = np.cumsum([len(line) for line in lines])
    digests = None
    if kb.digests is not None:
        digests = kb.digests.take(below).extended([str(kb.text_digest(int(row))) for row in above])
    index = VectorIndex.build(keys, kb.config, progress=progress)
    return KnowledgeBase(index, labels, table, b"".join(lines), digests, kb.pins[rows], kb.new_label_odds)


def tune_ef_search(kb: KnowledgeBase, queries: Floats | None, k: int) -> EfSearchChoice:
    """Set ``ef_search`` of a knowledge base to the least value with full recall (`exact_search.least_ef_search`).

    Args:
        kb: the knowledge base to change.
        queries: float32 [m, d] of length 1, none of them a key; None adds noise to some of the keys.
        k: number of neighbours.

    Returns:
        The value and its recall.
    """
    if not len(kb):
        return EfSearchChoice(kb.config.expansion_search, 1.0, 0.0)
    keys = unit(kb.keys())
    choice = least_ef_search(kb.index, keys, _queries(keys, queries), k)
    kb.index.set_ef_search(choice.expansion_search)
    return choice


def add_lists(kb: KnowledgeBase, queries: Floats | None, k: int) -> KnowledgeBase:
    """The same rows with lists, where these pay (`lists.chosen_lists`); the arguments are those of `tune_ef_search`."""
    if not len(kb) or kb.config.probes:
        return kb
    return kb.with_lists(chosen_lists(kb.index, _queries(unit(kb.keys()), queries), k))


def _queries(keys: Floats, queries: Floats | None) -> Floats:
    return noisy_queries(keys) if queries is None or not len(queries) else queries[:MOST_QUERIES]


def noisy_queries(keys: Floats) -> Floats:
    """Queries for keys [n, d] of length 1 where there are no real ones: some of the keys with noise."""
    rng = np.random.default_rng(0)
    some = keys[rng.choice(len(keys), min(MOST_QUERIES, len(keys)), replace=False)]
    noise = rng.standard_normal(some.shape)
    return unit(some + _NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True))


def _changed(kb: OverlayKnowledgeBase, below: NDArray[np.int64]) -> dict[int, Floats]:
    """The edited labels of the base's rows, by their place in ``below``."""
    edits = kb.relabelled
    places = [place for place, row in enumerate(below.tolist()) if row in edits]
    return {place: kb.soft_labels.take(below[[place]])[0] for place in places}
