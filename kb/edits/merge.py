"""Edits folded into a knowledge base of its own: rows that were removed are gone, and added ones are like all others.

Rows keep their order and ids. With the same rows the files are the same, byte for byte, whether folded once or often.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..index.exact_search import EfSearchChoice, narrowest
from ..index.hnsw import VectorIndex
from ..knowledge_base import ROW_DTYPE, KnowledgeBase, text_line
from ..soft_labels import edited
from .overlay import OverlayKnowledgeBase

Floats = NDArray[np.float32]

MOST_QUERIES = 256
_NOISE = 0.5  # length of what is added to a key of length 1 to make a query of it


def fold(kb: OverlayKnowledgeBase, progress: Callable[[int, int], object] | None = None) -> KnowledgeBase:
    """Make a knowledge base of the rows that are not removed.

    Args:
        kb: with edits.
        progress: as of `VectorIndex.build`.
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
    return KnowledgeBase(index, labels, table, b"".join(lines), digests, kb.pins[rows], kb.odds)


def searched(kb: KnowledgeBase, queries: Floats | None, k: int) -> EfSearchChoice:
    """Set a folded knowledge base's search as broad as its keys need (`recall.narrowest`).

    Args:
        kb: whose index is set.
        queries: float32 [m, d] of length 1, none of them a key; None makes some of the keys.
        k: neighbours that are asked for.

    Returns:
        The width, and the recall it has.
    """
    if not len(kb):
        return EfSearchChoice(kb.config.expansion_search, 1.0, 0.0)
    keys = kb.keys()
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    if queries is None or not len(queries):
        rng = np.random.default_rng(0)
        some = keys[rng.choice(len(keys), min(MOST_QUERIES, len(keys)), replace=False)]
        noise = rng.standard_normal(some.shape)
        queries = (some + _NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    width = narrowest(kb.index, keys, queries[:MOST_QUERIES], k)
    kb.index.set_ef_search(width.expansion_search)
    return width


def _changed(kb: OverlayKnowledgeBase, below: NDArray[np.int64]) -> dict[int, Floats]:
    """The labels of the base's rows that edits gave another, by their place among ``below``."""
    edits = kb.relabelled
    places = [place for place, row in enumerate(below.tolist()) if row in edits]
    return {place: kb.soft_labels.take(below[[place]])[0] for place in places}
