"""The pipeline of one text: tokenizer, student, retrieval policy, search, blend.

The steps run in this order because the student's answer, known before the search, decides whether to search.
"""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, ModelError, ReaugkdError, UsageError
from ...kb.knowledge_base import INDEX_FILE, SOFT_LABELS_FILE
from ...kb.searchable import Searchable
from ..bundle.manifest import Manifest
from ..decision.blend_config import BlendConfig
from ..decision.blending import Blended, blend, blend_edited
from .inputs import Text, checked_input
from .neighbours import NO_NEIGHBOURS, Neighbours
from .prediction import Prediction, Timings
from .retrieval_policy import RetrievalPolicy
from .student import StudentSession
from .tokenizer import TextTokenizer

Floats = NDArray[np.float32]

_ROUNDING = 1e-3
_AGAIN = "Export the bundle again."
_least = np.minimum.reduce  # faster than the arrays' own methods, as in `blending`
_sum = np.add.reduce


class Pipeline:
    """Answers texts with the parts of one bundle.

    Args:
        manifest: the bundle's manifest.
        tokenizer: the bundle's tokenizer.
        kb: the knowledge base in its current state.
        policy: decides for each text whether to search.
        labels: names of all labels, first those that the student was trained on; None for the manifest's.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        kb: Searchable,
        policy: RetrievalPolicy,
        labels: tuple[str, ...] | None = None,
    ) -> None:
        self._labels = manifest.labels if labels is None else labels
        self._pair, self._blend = manifest.text_pair, manifest.blend
        self._new = len(self._labels) - len(manifest.labels)
        self._tokenizer, self._kb, self.policy = tokenizer, kb, policy
        self._with_neighbours = self._alone = None
        if manifest.abstention is not None and not self._new:  # the sets were fitted for the manifest's labels
            gated = policy.threshold is not None
            self._with_neighbours, self._alone = manifest.abstention.set_thresholds(gated)

    def answer(self, student: StudentSession, text: Text) -> Prediction:
        """Answer one text.

        Args:
            student: the session to run.
            text: a text or a pair.

        Raises:
            TextError: the text cannot be answered.
            ModelError: the student cannot run, or its output is not a distribution.
            BundleError: the tokenizer fails on the text, or the keys or soft labels that were found are damaged.
        """  # noqa: DOC501
        began = perf_counter_ns()
        encoding = self._tokenizer.encode(*checked_input(text, self._pair))
        tokenized = perf_counter_ns()
        own, embedding = student.answer(encoding, self._blend.student_temperature)
        searched = ran = perf_counter_ns()
        reason = self.policy.reason_to_skip(own.item(own.argmax()), ran - began)
        if reason is None:
            rows, similarities = self._search(student, embedding)
            searched = perf_counter_ns()
            mix = mixed(self._kb, own, rows, similarities, self._blend)
            probabilities, retrieved, weights, share, new, pinned = mix
            neighbours, sets = Neighbours(self._kb, rows, similarities, weights, self._labels), self._with_neighbours
            own = self._widened(own)
        else:
            probabilities = own = self._widened(own)
            retrieved, share, new, pinned, neighbours, sets = None, 1.0, 0.0, 0.0, NO_NEIGHBOURS, self._alone
        if not (_is_distribution(probabilities) and (retrieved is None or _least(retrieved) >= 0)):
            raise _broken(student, own, neighbours)
        best = int(probabilities.argmax())
        blended = perf_counter_ns()
        self.policy.learn(blended - ran if reason is None else None)
        return Prediction(
            label=self._labels[best],
            probability=float(probabilities[best]),
            probabilities=probabilities,
            student_probabilities=own,
            retrieval_probabilities=retrieved,
            reason=reason,
            student_weight=share,
            timings=_timings(began, tokenized, ran, searched, blended),
            labels=self._labels,
            neighbours=neighbours,
            set_thresholds=sets,
            edited=(new, pinned),
            truncated=self._tokenizer.truncated(encoding),
        )

    def _search(self, student: StudentSession, embedding: Floats) -> tuple[NDArray[np.int64], Floats]:
        try:
            return self._kb.search(embedding, self._blend.k)
        except UsageError as error:  # the query has no direction
            raise ModelError(
                "the student's embedding is not a number",
                path=student.path,
                found=f"an embedding with {error.found}",
                remedy=_AGAIN,
            ) from error

    def _widened(self, own: Floats) -> Floats:
        """The student's probabilities over all labels: 0 for labels that it was not trained on."""
        return np.concatenate([own, np.zeros(self._new, np.float32)]) if self._new else own


def mixed(
    kb: Searchable,
    student: Floats,
    rows: NDArray[np.int64],
    similarities: Floats,
    config: BlendConfig,
    pinned: bool = True,
) -> Blended:
    """Blend the student's probabilities with the soft labels of retrieved rows.

    Args:
        kb: the knowledge base that was searched.
        student: float32 [b], the student's probabilities of the labels that it was trained on.
        rows: int64 [k], row numbers.
        similarities: float32 [k], cosines, descending.
        config: the settings of the blend.
        pinned: whether pinned rows take precedence over other rows.
    """
    labels, pins = kb.soft_labels.take(rows), kb.pins
    if pins is None and kb.num_labels == len(student):
        return blend(student, similarities, labels, config)
    pinned_rows = pins[rows] if pinned and pins is not None else None
    return blend_edited(student, similarities, labels, config, len(student), pinned_rows, rows, kb.new_label_odds)


def _is_distribution(probabilities: Floats) -> bool:
    """Whether [c] are probabilities; False with NaN."""
    return bool(_least(probabilities) >= 0 and abs(_sum(probabilities) - 1) < _ROUNDING)


def _timings(began: int, tokenized: int, ran: int, searched: int, blended: int) -> Timings:
    return Timings(
        (tokenized - began) / 1e3, (ran - tokenized) / 1e3, (searched - ran) / 1e3, (blended - searched) / 1e3
    )


def _broken(student: StudentSession, own: Floats, neighbours: Neighbours) -> ReaugkdError:
    """The error for an answer that is not a distribution, which names the damaged part.

    A bundle that was opened without verification may hold anything, and a hash does not prove that a file is valid.
    """
    if not len(neighbours) or not _is_distribution(own):
        found = "NaN" if np.isnan(own).any() else f"{own.min():.4g} to {own.max():.4g}, sum {own.sum():.4g}"
        return ModelError("the student's output is not a distribution", path=student.path, found=found)
    if not np.isfinite(neighbours.similarities).all():
        return BundleError("a similarity is not a number", path=INDEX_FILE, remedy=_AGAIN)
    return BundleError("a neighbour's soft label is not a distribution", path=SOFT_LABELS_FILE, remedy=_AGAIN)
