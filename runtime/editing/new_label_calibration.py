"""How readily a text is given a label that the student was never taught, set by the held-out rows of those it was.

Five rows of a new label compete with a hundred of each old one: left alone, most of its texts go to old labels; and a
hundred such labels would take too many texts from the old ones. So the odds of all new labels are multiplied by one
factor: the largest with which no more than a share `LOSS` of the held-out rows are lost to them. On clinc150, with 30
of 150 intents as new labels, that found nearly twice as many texts of those with five rows each (docs/editing.md).
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import BundleError
from ...kb.edits.change import Change
from ...kb.edits.overlay import OverlayKnowledgeBase
from ..decision.blending import softmax
from ..inference.pipeline import mixed
from .store import KnowledgeStore

LOSS = 0.003
"""Share of the held-out rows that new labels may take, wrongly."""

_STEP = 1.25  # between the numbers of rows with new labels at which the factor is found anew
_LEAST, _MOST = 1e-3, 1e3


def odds(store: KnowledgeStore, kb: OverlayKnowledgeBase, change: Change) -> float | None:
    """The factor after an edit; None where it stays as it is.

    It is found anew where there are fewer rows with new labels than before, or about a quarter more.

    Args:
        store: of the bundle.
        kb: before the edit.
        change: the edit.
    """
    taught = len(store.bundle.manifest.labels)
    if kb.num_labels + len(change.labels) == taught:
        return None
    rows = int((kb.alive & (kb.gold() >= taught)).sum())
    now = rows + _more(kb, change, set(kb.labels[:taught]))
    if not now or (rows <= now and _step(rows) == _step(now)):
        return None
    return calibrated(store, kb.supposing(change))


def _more(kb: OverlayKnowledgeBase, change: Change, taught: set[str]) -> int:
    """How many more rows have new labels after a change."""

    def of_row(row_id: int, alive: bool) -> bool:
        row = kb.find(row_id, alive)
        return row is not None and kb.label(row) >= len(taught)

    more = sum(row.labelling.label not in taught | {None} for row in change.add)
    more += sum((row.new.label not in taught | {None}) - of_row(row.id, True) for row in change.relabel)
    more += sum(of_row(row, False) for row in change.restore) - sum(of_row(row, True) for row in change.remove)
    return more


def _step(rows: int) -> int:
    return math.floor(math.log(rows, _STEP)) if rows else -1


def calibrated(store: KnowledgeStore, kb: OverlayKnowledgeBase) -> float:
    """The factor by the held-out rows; 1 where the bundle holds none.

    Args:
        store: of the bundle.
        kb: with rows of new labels.
    """
    try:
        heldout, related = store.heldout(), store.related()
    except BundleError:
        return 1.0
    config, known = store.bundle.manifest.blend, len(store.bundle.manifest.labels)
    seen = kb.without(range(*related) if related is not None else range(0))
    turns = []  # the factor from which on a row that is right would be lost
    if not len(seen):
        return 1.0
    rows, similarities = seen.search_many(heldout.queries, config.k)
    for logits, gold, near, nearness in zip(heldout.logits, heldout.gold, rows, similarities, strict=True):
        student = softmax(logits, config.student_temperature)
        # A held-out row with the text of an added one is not lost: it is what was corrected.
        found = mixed(seen, student, near, nearness, config, pinned=False).probabilities
        old = int(found[:known].argmax())
        if old == gold:
            turns.append(kb.odds * float(found[old]) / max(float(found[known:].max()), 1e-30))
    lost = int(LOSS * len(heldout))
    # Where no held-out row is anywhere near a new label they tell nothing.
    if len(turns) <= lost or min(turns) > _MOST:
        return 1.0
    return float(np.clip(0.999 * np.sort(turns)[lost], _LEAST, _MOST))
