"""Review of labels: the rows of a knowledge base whose neighbours contradict their label.

The score of a row is its self-confidence, the probability of its own label by its neighbours:

    s_i = sum_j a_j [y_j = y_i],    a = softmax_j(cosine_ij / TAU),    j among the NEIGHBOURS nearest rows without row i

so a row never votes for itself. This is confident learning's label quality score (Northcutt et al., 2021; cleanlab's
``self_confidence``) with out-of-sample probabilities that need no training: the rows' keys and labels are enough, texts
are not needed. Rows with a cosine of `SAME_TEXT` or more do not vote either: a text that is stored twice with the same
wrong label would vouch for itself.

Chosen on train rows of banking77 with flipped labels (`benchmarks/quality/review.py`): the self-confidence ranks better
than the margin to the other labels; the student's own probabilities make it worse, because it was trained on these
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.searchable import Searchable
from ..decision.blending import softmax
from ..runtime import Runtime
from .stored_rows import SAME_TEXT, keys_of, require_two_labels, stored_rows

NEIGHBOURS, TAU = 50, 0.1
BELOW = 0.05
"""Default limit of the self-confidence of a listed row."""

_BLOCK = 256  # rows that are searched for between two reports of progress
_KEYS = 256 * _BLOCK  # rows whose keys are copied at once


@dataclass(frozen=True)
class LabelIssue:
    """A row whose neighbours contradict its label.

    Attributes:
        id: the row's id.
        text: its text or pair; None if texts are not kept.
        label: its gold label.
        suggested: the label that its neighbours give.
        self_confidence: the neighbours' probability of ``label``, 0 to 1.
        suggested_probability: the neighbours' probability of ``suggested``.
    """

    id: int
    text: str | tuple[str, str] | None
    label: str
    suggested: str
    self_confidence: float
    suggested_probability: float


@dataclass(frozen=True)
class Review:
    """The result of a review.

    Attributes:
        issues: the rows whose label is contradicted, lowest self-confidence first.
        checked: number of rows whose label was checked.
        edited: number of rows left out because an edit gave them their label.
        unlabelled: number of rows left out because they have no gold label.
    """

    issues: tuple[LabelIssue, ...]
    checked: int
    edited: int
    unlabelled: int


def review(
    runtime: Runtime,
    below: float = BELOW,
    edited: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Review:
    """List the rows of a bundle whose neighbours contradict their label.

    Rows without a gold label are not checked, but vote with their soft label. Rows whose label comes from an edit
    vote, and are checked only on request, because a person has decided on them.

    Args:
        runtime: the open bundle; its knowledge base is read in its current state.
        below: limit of the self-confidence, above 0 to 1: rows below it are listed, if another label has more votes.
        edited: check the rows whose label comes from an edit too.
        progress: called with (rows done, rows in total).

    Raises:
        UsageError: ``below`` is out of range, or the bundle has one label.
    """
    if not 0 < below <= 1:
        raise UsageError("below is unusable", found=repr(below), expected="a share above 0 and at most 1")
    now = runtime._current()  # one state: an edit between two calls could end a label that rows have
    kb, labels = now.kb, now.labels
    require_two_labels(labels)
    rows, gold = stored_rows(kb), kb.gold()
    pinned = np.zeros(len(gold), bool) if kb.pins is None else kb.pins
    labelled = gold[rows] >= 0
    chosen = rows[labelled & (edited | ~pinned[rows])]
    issues, done = [], 0
    for block, keys in _blocks(kb, chosen):
        for row, votes in zip(block, neighbour_votes(kb, block, keys, gold), strict=True):
            label, best = int(gold[row]), int(votes.argmax())
            if votes[label] < min(below, float(votes[best])):
                own, other = float(votes[label]), float(votes[best])
                text = kb.text(int(row))
                issues.append(LabelIssue(kb.id(int(row)), text, labels[label], labels[best], own, other))
        done += len(block)
        if progress is not None:
            progress(done, len(chosen))
    issues.sort(key=lambda issue: (issue.self_confidence, -issue.suggested_probability, issue.id))
    return Review(tuple(issues), len(chosen), int(labelled.sum()) - len(chosen), int((~labelled).sum()))


def _blocks(kb: Searchable, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Blocks of rows with their keys."""
    for first in range(0, len(rows), _KEYS):
        keys = keys_of(kb, rows[first : first + _KEYS])
        for begin in range(0, len(keys), _BLOCK):
            block = keys[begin : begin + _BLOCK]
            yield rows[first + begin :][: len(block)], block


def neighbour_votes(
    kb: Searchable, rows: NDArray[np.int64], keys: NDArray[np.float32], gold: NDArray[np.integer]
) -> NDArray[np.float32]:
    """The probabilities of all labels by the neighbours of stored rows, without the rows themselves.

    Args:
        kb: the knowledge base.
        rows: int64 [m], the rows' numbers.
        keys: float32 [m, d], their keys.
        gold: the gold labels of all rows, -1 for none.

    Returns:
        float32 [m, c]; all 0 for a row without other rows, or only with rows of the same text.
    """
    found, similarities = kb.search_many(keys, NEIGHBOURS + 1)
    votes = np.zeros((len(rows), kb.num_labels), np.float32)
    for place, row in enumerate(rows):
        others = (found[place] != row) & (similarities[place] < SAME_TEXT)
        near = found[place][others][:NEIGHBOURS]
        if len(near):
            weights = softmax(similarities[place][others][:NEIGHBOURS], TAU)
            named = gold[near] >= 0
            np.add.at(votes[place], gold[near][named], weights[named])
            if not named.all():
                soft = kb.soft_labels.take(near[~named])
                votes[place] += weights[~named] @ (soft / soft.sum(axis=1, keepdims=True))
    return votes
