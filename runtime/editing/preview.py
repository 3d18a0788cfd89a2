"""Preview of an edit: the held-out rows of the bundle whose predicted label changes.

The knowledge base usually contains the held-out rows, and each would retrieve itself. The preview hides them, so that
each row is predicted like a new text. The neighbours answer new labels here, because the classifier of new labels is
fitted only after the edit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kb.edits.change import Change
from ...kb.edits.overlay import OverlayKnowledgeBase
from ...kb.searchable import SearchResult
from ..bundle.heldout_rows import HeldOutRows
from ..decision.blend_config import BlendConfig
from ..decision.blending import softmax
from ..inference.pipeline import mixed
from .store import KnowledgeStore


@dataclass(frozen=True)
class Flip:
    """A held-out row that gets another label.

    Attributes:
        row: its number among the held-out rows.
        gold: its gold label.
        before: its predicted label before the edit.
        after: its predicted label after the edit.
    """

    row: int
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class Preview:
    """The effect of an edit on the held-out rows.

    Attributes:
        rows: number of held-out rows.
        flips: the rows that get another label.
    """

    rows: int
    flips: tuple[Flip, ...]

    @property
    def share(self) -> float:
        """Share of the rows that get another label."""
        return len(self.flips) / max(self.rows, 1)

    @property
    def better(self) -> int:
        """Number of rows that become right."""
        return sum(flip.after == flip.gold for flip in self.flips)

    @property
    def worse(self) -> int:
        """Number of rows that become wrong."""
        return sum(flip.before == flip.gold for flip in self.flips)


def preview_change(store: KnowledgeStore, kb: OverlayKnowledgeBase, change: Change) -> Preview:
    """Predict the held-out rows before and after an edit.

    Args:
        store: the store of the bundle.
        kb: the knowledge base before the edit.
        change: the edit.

    Raises:
        BundleError: the bundle has no held-out rows.
        UsageError: the change refers to unknown rows.
    """
    heldout, related = store.heldout(), store.related()
    config, after = store.bundle.manifest.blend, kb.supposing(change)
    hidden = range(*related) if related is not None else range(0)
    old, new = (_answers(some.without(hidden), heldout, config) for some in (kb, after))
    flips = [
        Flip(int(row), after.labels[heldout.gold[row]], after.labels[old[row]], after.labels[new[row]])
        for row in np.flatnonzero(old != new)
    ]
    return Preview(len(heldout), tuple(flips))


def _answers(kb: OverlayKnowledgeBase, heldout: HeldOutRows, config: BlendConfig) -> NDArray[np.int64]:
    """Predict the label index of each held-out row, int64 [n]."""
    found = np.zeros(len(heldout), np.int64)
    rows, similarities = kb.search_many(heldout.queries, config.k)
    for row, (logits, near, nearness) in enumerate(zip(heldout.logits, rows, similarities, strict=True)):
        student = softmax(logits, config.student_temperature)
        found[row] = (
            mixed(kb, student, SearchResult(near, nearness), config).probabilities if len(kb) else student
        ).argmax()
    return found
