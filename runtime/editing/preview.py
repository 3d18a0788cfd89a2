"""What an edit would change, told by the held-out rows that a bundle holds.

The held-out rows themselves are in the knowledge base as a rule, and each would find itself: they are left out here, so
that a row is answered as a new text like it would be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kb.edits.change import Change
from ...kb.edits.overlay import OverlayKnowledgeBase
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
        gold: its own label.
        before: what it was answered.
        after: what it will be answered.
    """

    row: int
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class Preview:
    """What an edit changes for held-out rows.

    Attributes:
        rows: how many there are.
        flips: those that get another label.
    """

    rows: int
    flips: tuple[Flip, ...]

    @property
    def share(self) -> float:
        """Share of the rows that get another label."""
        return len(self.flips) / max(self.rows, 1)

    @property
    def better(self) -> int:
        """How many become right."""
        return sum(flip.after == flip.gold for flip in self.flips)

    @property
    def worse(self) -> int:
        """How many were right and are not any more."""
        return sum(flip.before == flip.gold for flip in self.flips)


def preview(store: KnowledgeStore, kb: OverlayKnowledgeBase, change: Change) -> Preview:
    """Answer the held-out rows as before and as after an edit.

    Args:
        store: of the bundle.
        kb: before the edit.
        change: the edit.

    Raises:
        BundleError: the bundle holds no held-out rows.
        UsageError: the change is of rows that are not there.
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
    """The number of each held-out row's label."""
    found = np.zeros(len(heldout), np.int64)
    rows, similarities = kb.search_many(heldout.queries, config.k)
    for row, (logits, near, nearness) in enumerate(zip(heldout.logits, rows, similarities, strict=True)):
        student = softmax(logits, config.student_temperature)
        found[row] = (mixed(kb, student, near, nearness, config).probabilities if len(kb) else student).argmax()
    return found
