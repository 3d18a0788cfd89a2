"""Calibration of new labels: a factor on the odds of labels that the student was not trained on.

A new label with five rows competes with old labels of a hundred rows each: without a factor most of its texts go to old
labels. A hundred new labels, on the other hand, would take too many texts from the old ones. The factor on the odds of
all new labels is therefore the largest one with which at most a share `LOSS` of the held-out rows is lost to them. On
clinc150, with 30 of 150 intents as new labels of five rows each, this nearly doubled their recall
(docs/explanation/lab-book.md).
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import BundleError
from ...kb.edits.change import Change
from ...kb.edits.overlay import OverlayKnowledgeBase
from ...kb.searchable import SearchResult
from ..decision.blending import softmax
from ..inference.pipeline import mixed
from .store import KnowledgeStore

LOSS = 0.003
"""Limit on the share of held-out rows that new labels take wrongly."""

_STEP = 1.25  # growth of the number of rows with new labels after which the factor is fitted again
_LEAST, _MOST = 1e-3, 1e3


def new_label_odds(store: KnowledgeStore, kb: OverlayKnowledgeBase, change: Change) -> float | None:
    """The factor after an edit; None if it stays unchanged.

    It is fitted again where there are fewer rows with new labels than before, or about a quarter more.

    Args:
        store: the store of the bundle.
        kb: the knowledge base before the edit.
        change: the edit.
    """
    trained = len(store.bundle.manifest.labels)
    if kb.num_labels + len(change.labels) == trained:
        return None
    rows = int((kb.alive & (kb.gold() >= trained)).sum())
    now = rows + _more(kb, change, set(kb.labels[:trained]))
    if not now or (rows <= now and _step(rows) == _step(now)):
        return None
    return calibrated(store, kb.supposing(change))


def _more(kb: OverlayKnowledgeBase, change: Change, trained: set[str]) -> int:
    """By how many rows a change increases the rows with new labels."""

    def of_row(row_id: int, alive: bool) -> bool:
        row = kb.find(row_id, alive)
        return row is not None and kb.label(row) >= len(trained)

    more = sum(row.labelling.label not in trained | {None} for row in change.add)
    more += sum((row.new.label not in trained | {None}) - of_row(row.id, True) for row in change.relabel)
    more += sum(of_row(row, False) for row in change.restore) - sum(of_row(row, True) for row in change.remove)
    return more


def _step(rows: int) -> int:
    return math.floor(math.log(rows, _STEP)) if rows else -1


def calibrated(store: KnowledgeStore, kb: OverlayKnowledgeBase) -> float:
    """The factor fitted on the held-out rows; 1 where the bundle has none.

    Args:
        store: the store of the bundle.
        kb: the knowledge base, with rows of new labels.
    """
    try:
        heldout, related = store.heldout(), store.related()
    except BundleError:
        return 1.0
    config, known = store.bundle.manifest.blend, len(store.bundle.manifest.labels)
    seen = kb.without(range(*related) if related is not None else range(0))
    turns = []  # for each row with the right answer, the factor above which new labels take it
    if not len(seen):
        return 1.0
    rows, similarities = seen.search_many(heldout.queries, config.k)
    for logits, gold, near, nearness in zip(heldout.logits, heldout.gold, rows, similarities, strict=True):
        student = softmax(logits, config.student_temperature)
        # A held-out row with the text of an added row was corrected, not lost.
        found = mixed(seen, student, SearchResult(near, nearness), config, pinned=False).probabilities
        old = int(found[:known].argmax())
        if old == gold:
            turns.append(kb.new_label_odds * float(found[old]) / max(float(found[known:].max()), 1e-30))
    lost = int(LOSS * len(heldout))
    # Held-out rows far from every new label give no estimate.
    if len(turns) <= lost or min(turns) > _MOST:
        return 1.0
    return float(np.clip(0.999 * np.sort(turns)[lost], _LEAST, _MOST))
