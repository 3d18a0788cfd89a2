"""Calibration of new labels: the shift of the log odds of labels that the student was not trained on.

A new label with five rows competes with old labels of a hundred rows each: without a shift most of its texts go to old
labels. A hundred new labels, on the other hand, would take too many texts from the old ones. The shift is the largest
one with which new labels are expected to take at most a share `LOSS` of the texts of old labels that are answered right
(`largest_shift`). The same rule shifts the neighbours' odds (`new_label_odds`) and the classifier's (`fit`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError
from ....kb.edits.change import Change
from ....kb.edits.overlay import OverlayKnowledgeBase
from ...decision.blending import blend_batch, softmax_many
from ..store import KnowledgeStore

Wide = NDArray[np.float64]

LOSS = 0.003
"""Limit on the expected share of right answers on old labels that new labels take."""

_STEP = 1.25  # growth of the number of rows with new labels after which the odds are fitted again
_MOST = math.log(1e3)  # largest shift, up or down
_LEAST = 1e-30
_MOST_SHARES = 1 << 20  # numbers in the neighbours' soft labels of the texts that are blended at once
_TAIL, _LEAST_TAIL = 0.04, 10  # share and smallest number of texts that the tail is fitted to


@dataclass(frozen=True, eq=False)
class RightAnswers:
    """The held-out rows that are answered right without new labels.

    Attributes:
        queries: float32 [n, d].
        log_old: [n], logarithm of the right label's probability, which is the largest.
        retrieved: [n, c], the neighbours' probabilities.
    """

    queries: NDArray[np.float32]
    log_old: Wide
    retrieved: Wide


def new_label_odds(store: KnowledgeStore, kb: OverlayKnowledgeBase, change: Change) -> float | None:
    """The factor on the odds of new labels after an edit; None if it stays unchanged.

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
    right = right_answers(store, kb.supposing(change), store.related())
    return 1.0 if right is None else math.exp(largest_shift(turning_points(right.log_old, right.retrieved, trained)))


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


def right_answers(
    store: KnowledgeStore, kb: OverlayKnowledgeBase, related: tuple[int, int] | None
) -> RightAnswers | None:
    """Answer the held-out rows without new labels; None where the bundle has none, or nothing to answer them with.

    Args:
        store: the store of the bundle.
        kb: the knowledge base, with rows of new labels.
        related: first row and end of the held-out rows in it, which cannot answer themselves; None if there are none.
    """
    try:
        heldout = store.heldout()
    except BundleError:
        return None
    config = store.bundle.manifest.blend
    seen = kb.without(range(*related) if related is not None else range(0))
    if not (len(seen) and len(heldout)):
        return None
    rows, similarities = seen.search_many(heldout.queries, config.k)
    student = softmax_many(heldout.logits, config.student_temperature)
    places, log_old, retrieved = [], [], []
    size = max(1, _MOST_SHARES // (rows.shape[1] * kb.num_labels))
    for first in range(0, len(heldout), size):
        some = slice(first, first + size)
        soft = seen.soft_labels.take(rows[some].ravel()).reshape(*rows[some].shape, -1)
        # A held-out row with the text of an added row was corrected, not lost: pinned rows have no precedence.
        found = blend_batch(student[some], similarities[some], soft, config)
        right = np.flatnonzero(found.probabilities.argmax(axis=1) == heldout.gold[some])
        places.append(first + right)
        log_old.append(np.log(np.maximum(found.probabilities[right].max(axis=1), _LEAST)))
        retrieved.append(found.retrieval_probabilities[right])
    chosen = np.concatenate(places)
    if not len(chosen):
        return None
    return RightAnswers(heldout.queries[chosen], np.concatenate(log_old), np.concatenate(retrieved))


def turning_points(log_old: Wide, voted: Wide, trained: int) -> Wide:
    """The shift from which on each text goes to a new label, [n]; large where no new label has any probability.

    With v the probabilities of all labels that the neighbours or the classifier give, m the sum of those of new labels,
    and a the largest probability of an old label in the blend without new labels (`blending.blend_edited`), a new label
    wins if m' max(v_new) / m > (1 - m') a, and the log odds of m' are those of m plus the shift.

    Args:
        log_old: [n], log a.
        voted: [n, c], v.
        trained: number of labels that the student was trained on; the others are new.
    """
    old = np.maximum(voted[:, :trained].sum(axis=1), _LEAST)
    found: Wide = log_old + np.log(old) - np.log(np.maximum(voted[:, trained:].max(axis=1), _LEAST))
    return found


def largest_shift(points: Wide) -> float:
    """The largest shift with which at most a share `LOSS` of texts is expected to be lost.

    An exponential distribution is fitted to the tail (peaks over a threshold, Pickands 1975): with t the (k + 1)-th
    smallest turning point of n, and b the mean distance of the k smallest ones from it, the expected share of texts
    below t - z is k / (n + 1) (1 + z / (k b))^-k, where b is known from k texts only. k is `_TAIL` of n. A single
    smallest point in place of the fit varies half as much again from one draw of texts to the next.

    Where fewer than `_LEAST_TAIL` texts are near any new label, the j-th smallest point is taken: of n texts and one
    more, each is as likely as any other to have one of the j smallest, so just below it the expected loss is
    j / (n + 1). With fewer than 332 texts there is no such j. Then the smallest point is lowered by
    log(LOSS (n + 1)), as if the share of lost texts were proportional to the odds.

    Args:
        points: [n], the turning points of held-out texts, n at least 1.

    Returns:
        The shift; 0 where the texts are so far from every new label that they give no estimate.
    """
    allowed = LOSS * (len(points) + 1)
    points = np.sort(points)
    if points[0] > _MOST:
        return 0.0
    near = points[: max(_LEAST_TAIL, math.ceil(_TAIL * len(points))) + 1]
    near = near[near <= _MOST]
    if len(near) > _LEAST_TAIL:
        k = len(near) - 1
        shift = near[-1] - k * (near[-1] - near[:-1]).mean() * ((k / allowed) ** (1 / k) - 1)
    else:
        shift = points[int(allowed) - 1] if allowed >= 1 else points[0] + math.log(allowed)
    return float(np.clip(shift - 1e-3, -_MOST, _MOST))
