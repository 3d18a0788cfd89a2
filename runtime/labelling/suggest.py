"""Choice of the texts that are worth labelling next: uncertain, novel, typical of many, and not alike.

Every text x has a weight w_x = u_x + NOVELTY n_x. The uncertainty u is 1 minus the difference between the two largest
probabilities of the answer (margin sampling, Scheffer et al., 2001). The novelty n is the share of stored rows that are
nearer to another stored row than x is to its nearest one. The choice S maximises, one text after the other,

    sum_x w_x max_{s in S} max(cosine(x, s), 0)^SHARPNESS

so a text counts for as far as it is like uncertain texts that no chosen text is like yet (facility location: Wei, Iyer
and Bilmes, ICML 2015). Only the `MOST` texts of the largest weights take part.

Chosen on train rows of banking77 and clinc150 (docs/reference/results.md): margins alone, chosen without regard to each
other, gain less, and the most novel texts little more than random ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ReaugkdError, UsageError
from ...kb.searchable import Searchable
from ..inference.pipeline import mixed
from ..inference.session.student import StudentSession
from ..inference.text.inputs import Text, checked_input
from ..opening import Opened
from ..runtime import Runtime
from .stored_rows import SAME_TEXT, KnownTexts, keys_of, require_two_labels, stored_rows

Floats = NDArray[np.float32]

NOVELTY, SHARPNESS = 0.25, 4
MOST = 2000
"""The largest number of texts to choose, and the number of texts of the largest weights that are compared."""

_NOVEL = 0.95  # novelty from which the reason names it
_MOST_SAMPLED = 1000  # stored rows from which the novelty is estimated


@dataclass(frozen=True)
class Suggestion:
    """A text that is worth labelling.

    Attributes:
        place: its place among the given texts, from 0.
        text: the text or pair.
        label: the label that the bundle predicts for it.
        probability: the probability of that label.
        second: the second likeliest label.
        second_probability: its probability.
        similarity: the cosine to the nearest stored row; None where no rows are stored.
        novelty: the share of stored rows that are nearer to another stored row, 0 to 1.
    """

    place: int
    text: Text
    label: str
    probability: float
    second: str
    second_probability: float
    similarity: float | None
    novelty: float

    @property
    def reason(self) -> str:
        """Why it is worth labelling, in words."""
        found = f"{self.label} ({self.probability:.0%}) or {self.second} ({self.second_probability:.0%})"
        if self.novelty < _NOVEL or self.similarity is None:
            return found
        return f"{found}; unlike the stored rows: the nearest has a cosine of {self.similarity:.2f}"


def suggest(
    runtime: Runtime, texts: Iterable[Text], count: int = 100, progress: Callable[[int], object] | None = None
) -> tuple[Suggestion, ...]:
    """Choose the texts that are worth labelling next; the same input gives the same choice.

    Texts that are stored already, and repeated ones, are left out: equal texts, and texts whose keys have a cosine of
    0.99 or more.

    Args:
        runtime: the open bundle.
        texts: texts or pairs.
        count: the largest number of texts to choose, 1 to 2,000.
        progress: called with the number of texts read.

    Returns:
        the choice, best first.

    Raises:
        UsageError: ``count`` is out of range, or the bundle has one label.
        TextError: the model cannot read a text; the error has its 1-based place as ``row``.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise UsageError("count is unusable", found=repr(count), expected=f"a whole number from 1 to {MOST:,}")
    now = runtime._current()  # one state to the end, whatever edits come meanwhile
    kb, labels = now.kb, now.labels
    require_two_labels(labels)
    reader, known, read = _Reader(now, runtime.student), KnownTexts(kb), []
    for place, text in enumerate(texts):
        if known.add(text):
            try:
                read.append(reader.read(place, text))
            except ReaugkdError as error:
                raise error.at(row=place + 1) from error
        if progress is not None:
            progress(place + 1)
    new = [one for one in read if not one.similarity >= SAME_TEXT]
    if not new:
        return ()
    novelty = _novelty(kb, np.array([one.similarity for one in new]))
    weights = np.array([one.uncertainty for one in new]) + NOVELTY * novelty
    order = _covering(np.array([one.query for one in new]), weights, count)
    return tuple(_suggestion(new[row], float(novelty[row]), labels) for row in order)


class _Read(NamedTuple):
    """A text with its answer, its query of length 1, and the cosine to the nearest stored row (NaN without rows)."""

    place: int
    text: Text
    probabilities: Floats
    query: Floats
    similarity: float

    @property
    def uncertainty(self) -> float:
        """1 minus the margin between the two largest probabilities."""
        second, first = np.sort(self.probabilities)[-2:]
        return 1.0 - float(first - second)


class _Reader:
    """Answers texts with one run of the student each, and keeps the query that a prediction does not have."""

    def __init__(self, now: Opened, student: StudentSession) -> None:
        self._kb, self._labels, self._classifier = now.kb, len(now.labels), now.classifier
        self._manifest, self._tokenizer, self._student = now.parts.bundle.manifest, now.parts.tokenizer, student

    def read(self, place: int, text: Text) -> _Read:
        encoding = self._tokenizer.encode(*checked_input(text, self._manifest.text_pair))
        _, query, own = self._student.everything(encoding)
        found = self._kb.search(query, self._manifest.blend.k)
        if len(found.rows):
            classifier = self._classifier
            classified = None if classifier is None else classifier.probabilities(query, self._labels)
            own = mixed(self._kb, own, found, self._manifest.blend, classified=classified).probabilities
            similarity = float(found.similarities[0])
        else:
            own, similarity = np.pad(own, (0, self._labels - len(own))), float("nan")
        return _Read(place, text, own, query / np.linalg.norm(query), similarity)


def _novelty(kb: Searchable, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of stored rows that are nearer to another stored row, for each cosine to the nearest row."""
    rows = stored_rows(kb)
    if len(rows) < 2:
        return np.ones(len(similarities))
    sample = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_SAMPLED)).round().astype(np.int64)
    nearest = np.sort(kb.search_many(keys_of(kb, rows[sample]), 2)[1][:, 1])
    return 1.0 - np.searchsorted(nearest, similarities, side="right") / len(nearest)


def _covering(queries: Floats, weights: NDArray[np.float64], count: int) -> list[int]:
    """The rows that stand for the largest weights, best first, none with a cosine of `SAME_TEXT` to another.

    Args:
        queries: float32 [n, d], of length 1.
        weights: [n], not negative.
        count: the largest number of rows.
    """
    rows = np.argsort(-weights, kind="stable")[:MOST]
    cosines, heavy = queries[rows] @ queries[rows].T, weights[rows].astype(np.float32)
    likeness = np.maximum(cosines, 0) ** SHARPNESS
    covered, left = np.zeros(len(rows), np.float32), np.ones(len(rows), bool)
    chosen: list[int] = []
    while len(chosen) < count and left.any():
        gains = heavy @ np.maximum(likeness - covered[:, np.newaxis], 0)
        best = int(np.where(left, gains, -1.0).argmax())
        chosen.append(int(rows[best]))
        left &= cosines[best] < SAME_TEXT
        left[best] = False
        covered = np.maximum(covered, likeness[best])
    return chosen


def _suggestion(read: _Read, novelty: float, labels: Sequence[str]) -> Suggestion:
    second, first = np.argsort(read.probabilities, kind="stable")[-2:]
    probabilities = read.probabilities
    return Suggestion(
        place=read.place,
        text=read.text,
        label=labels[first],
        probability=float(probabilities[first]),
        second=labels[second],
        second_probability=float(probabilities[second]),
        similarity=None if np.isnan(read.similarity) else read.similarity,
        novelty=novelty,
    )
