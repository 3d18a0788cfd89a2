"""What a review and a suggestion need: two labels, and the stored rows with keys and texts, without removed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.index.hnsw import float_keys
from ...kb.knowledge_base import KnowledgeBase
from ...kb.searchable import Searchable
from ..inference.text.inputs import Text

if TYPE_CHECKING:
    from ...kb.edits.overlay import OverlayKnowledgeBase

SAME_TEXT = 0.99
"""Cosine from which two texts count as the same text."""


def require_two_labels(labels: Sequence[str]) -> None:
    """Check that there are labels to choose between.

    Raises:
        UsageError: there is only one.
    """
    if len(labels) < 2:
        raise UsageError(
            "the bundle has one label, so no text can have another",
            found=", ".join(labels),
            expected="two labels or more",
            remedy="Add rows of another label first: reaugkd kb add BUNDLE TEXT --label NAME --new-labels.",
        )


def stored_rows(kb: Searchable) -> NDArray[np.int64]:
    """The numbers of the rows, int64 [n]."""
    return np.arange(len(kb)) if isinstance(kb, KnowledgeBase) else np.flatnonzero(_overlay(kb).alive)


def keys_of(kb: Searchable, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The keys of some rows, float32 [m, d], not normalised. Each call looks at all keys of the shards with such rows.

    Raises:
        BundleIntegrityError: keys have no direction.
    """
    if isinstance(kb, KnowledgeBase):
        return float_keys(kb.index.stored_rows(rows))
    edited, added = _overlay(kb), rows >= len(_overlay(kb).base)
    found = np.empty((len(rows), kb.ndim), np.float32)
    found[~added] = float_keys(edited.base.index.stored_rows(rows[~added]))
    for place in np.flatnonzero(added):
        found[place] = edited.key(int(rows[place]))
    return found


class KnownTexts:
    """The texts that are stored or were added to this set, as far as texts or digests are kept."""

    def __init__(self, kb: Searchable) -> None:
        self._digests = kb.digests
        rows = [int(row) for row in stored_rows(kb)]
        self._known: set[object] = {kb.text(row) if self._digests is None else kb.text_digest(row) for row in rows}

    def __contains__(self, text: Text) -> bool:
        return (text if self._digests is None else self._digests.of_text(text)) in self._known

    @property
    def complete(self) -> bool:
        """Whether the text of every stored row is kept, or its digest."""
        return None not in self._known

    def add(self, text: Text) -> bool:
        """Add a text; False if it was known."""
        known = text in self
        self._known.add(text if self._digests is None else self._digests.of_text(text))
        return not known


def _overlay(kb: Searchable) -> OverlayKnowledgeBase:
    from ...kb.edits.overlay import OverlayKnowledgeBase  # here: the import takes 15 ms, and most bundles have no edits

    assert isinstance(kb, OverlayKnowledgeBase)
    return kb
