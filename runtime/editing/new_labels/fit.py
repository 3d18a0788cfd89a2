"""The fit of the classifier of new labels: a linear classifier of all stored keys, and its shift.

It decides between old and new labels, and among new ones; student and neighbours decide among old ones
(`blending.blend_edited`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ....kb.edits.classifier_file import FittedClassifier
from ....kb.edits.overlay import OverlayKnowledgeBase
from ....kb.linear_classifier import MOST_ROWS, chosen_rows, fit
from ...decision.blending import softmax_many
from .calibration import largest_shift, right_answers, turning_points
from .in_use import labels_with_rows

if TYPE_CHECKING:
    from ..store import KnowledgeStore, View


def fit_classifier(store: KnowledgeStore, view: View) -> FittedClassifier | None:
    """Fit the classifier to a state of the knowledge base; None where no new label has a row.

    The held-out rows of the bundle are left out, because they choose the shift.

    Args:
        store: the store of the bundle.
        view: the state.
    """
    trained, kb = len(store.bundle.manifest.labels), store.edited(view)
    if not len(labels_with_rows(kb, trained)):
        return None
    related = store.related(view)
    labels = row_labels(kb, related, trained)
    rows = chosen_rows(labels)
    start = None if view.fitted is None else view.fitted.classifier
    made = fit(_keys(kb, rows), labels[rows], kb.num_labels, start)
    if made.bias[trained:].max() == -np.inf:  # all rows of new labels are held-out rows
        return None
    shift, right = np.zeros(kb.num_labels, np.float32), right_answers(store, kb, related)
    if right is not None:
        logits = (right.queries @ made.weights.T + made.bias).astype(np.float64)
        voted = np.asarray(softmax_many(logits), np.float64)
        points = turning_points(right.log_old, voted, trained)
        shift[trained:] = largest_shift(points)
    return FittedClassifier(view.head.seq, made, shift)


def row_labels(kb: OverlayKnowledgeBase, related: tuple[int, int] | None, trained: int) -> NDArray[np.int64]:
    """The label of each row for the fit, int64 [all rows]; -1 for rows that take no part.

    A row has its gold label. A row without one has the label with the largest share of its soft label, the teacher's
    answer; it takes no part if that is a new label without gold rows. Of many rows without a gold label,
    ``MOST_ROWS * c`` take part, evenly spaced.

    Args:
        kb: the knowledge base.
        related: first row and end of the held-out rows, which take no part unless an edit pinned them; None if there
            are none.
        trained: number of labels that the student was trained on.
    """
    labels, alive = kb.gold().astype(np.int64), kb.alive.copy()
    if related is not None:
        alive[slice(*related)] &= kb.pins[slice(*related)]
    unknown = np.flatnonzero(alive & (labels < 0))
    most = MOST_ROWS * kb.num_labels
    if len(unknown) > most:
        unknown = unknown[np.linspace(0, len(unknown) - 1, most).round().astype(np.int64)]
    if len(unknown):
        likeliest = kb.soft_labels.take(unknown).argmax(axis=1)
        labels[unknown] = np.where(
            (likeliest < trained) | np.isin(likeliest, labels_with_rows(kb, trained)), likeliest, -1
        )
    labels[~alive] = -1
    return labels


def _keys(kb: OverlayKnowledgeBase, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    base = len(kb.base)
    below, above = rows[rows < base], rows[rows >= base]
    added = [kb.key(int(row)) for row in above]
    stored = kb.base.index.stored_rows(below).astype(np.float32)
    return np.concatenate([stored, np.array(added, np.float32).reshape(-1, kb.ndim)])
