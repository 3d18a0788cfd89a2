"""Rows of new labels, those that the student was not trained on, and the classifier that answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ....kb.knowledge_base import KnowledgeBase
from ....kb.searchable import Searchable

if TYPE_CHECKING:
    from ....kb.edits.classifier_file import FittedClassifier
    from ....kb.edits.overlay import OverlayKnowledgeBase
    from ....kb.linear_classifier import LinearClassifier
    from ..store import View


def labels_with_rows(kb: Searchable, trained: int) -> NDArray[np.intp]:
    """The new labels that are the gold label of a row, as indices into the labels, in order.

    Args:
        kb: the knowledge base.
        trained: number of labels that the student was trained on.
    """
    if kb.num_labels == trained:
        return np.zeros(0, np.intp)
    gold = kb.gold()
    gold = gold if isinstance(kb, KnowledgeBase) else gold[_overlay(kb).alive]
    return np.flatnonzero(np.bincount(gold[gold >= trained], minlength=kb.num_labels))


def usable(fitted: FittedClassifier, kb: Searchable, trained: int) -> bool:
    """Whether a classifier knows exactly the new labels that have rows; its rows may be of an earlier state.

    Args:
        fitted: the classifier.
        kb: the knowledge base.
        trained: number of labels that the student was trained on.
    """
    known = np.flatnonzero(fitted.classifier.fitted)
    found = labels_with_rows(kb, trained)
    return len(found) > 0 and np.array_equal(known[known >= trained], found)


def classifier_in_use(view: View, trained: int) -> LinearClassifier | None:
    """The classifier that answers new labels; None where the neighbours do.

    Args:
        view: the state of the knowledge base.
        trained: number of labels that the student was trained on.
    """
    fitted = view.fitted
    return fitted.shifted if fitted is not None and usable(fitted, view.kb, trained) else None


def _overlay(kb: Searchable) -> OverlayKnowledgeBase:
    # Imported here: it takes 15 ms, and most bundles have no edits.
    from ....kb.edits.overlay import OverlayKnowledgeBase

    assert isinstance(kb, OverlayKnowledgeBase)
    return kb
