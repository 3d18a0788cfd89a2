"""The rows of a knowledge base with their keys, without those that edits removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...kb.knowledge_base import KnowledgeBase
from ...kb.searchable import Searchable

if TYPE_CHECKING:
    from ...kb.edits.overlay import OverlayKnowledgeBase

SAME_TEXT = 0.99
"""Cosine from which two texts count as the same text."""


def stored_rows(kb: Searchable) -> NDArray[np.int64]:
    """The numbers of the rows, int64 [n]."""
    return np.arange(len(kb)) if isinstance(kb, KnowledgeBase) else np.flatnonzero(_overlay(kb).alive)


def stored_keys(kb: Searchable) -> NDArray[np.float32]:
    """The keys of `stored_rows`, float32 [n, d], not normalised."""
    if isinstance(kb, KnowledgeBase):
        return kb.keys()
    edited = _overlay(kb)
    rows, base = np.flatnonzero(edited.alive), len(edited.base)
    added = [edited.key(int(row)) for row in rows[rows >= base]]
    return np.concatenate([edited.base.keys()[rows[rows < base]], np.array(added, np.float32).reshape(-1, kb.ndim)])


def _overlay(kb: Searchable) -> OverlayKnowledgeBase:
    from ...kb.edits.overlay import OverlayKnowledgeBase  # here: the import takes 15 ms, and most bundles have no edits

    assert isinstance(kb, OverlayKnowledgeBase)
    return kb
