"""The pipeline of one text: tokenizer, student, retrieval policy, search, blend.

Search and blend are steps after the student's run where they cannot be part of it (`graph_pipeline`): the knowledge
base is too large to compare a text with every row, or a policy decides after the run whether to search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, ModelError, ReaugkdError, UsageError
from ...kb.index.shards import INDEX_FILE
from ...kb.knowledge_base import SOFT_LABELS_FILE
from ...kb.linear_classifier import LinearClassifier
from ...kb.searchable import Searchable, SearchResult
from ..bundle.manifest import Manifest
from ..decision.blend_config import BlendConfig
from ..decision.blending import Blended, blend, blend_edited
from .neighbours import NO_NEIGHBOURS, Neighbours
from .prediction import Prediction, Timings
from .retrieval_policy import Reason, RetrievalPolicy, SearchMethod
from .session.student import StudentAnswer, StudentSession
from .text.inputs import Text, checked_input
from .text.tokenizer import TextTokenizer
from .text.word_ids import Tokens

Floats = NDArray[np.float32]

ROUNDING = 1e-3
"""Allowed deviation of a sum of probabilities, and of a length, from 1."""
_AGAIN = "Export the bundle again."
_least = np.minimum.reduce  # faster than the arrays' own methods, as in `blending`
_sum = np.add.reduce


class Clock(NamedTuple):
    """Nanoseconds on a clock: before the tokenizer, after it, after the run, after the search."""

    began: int
    tokenized: int
    ran: int
    searched: int

    def timings(self) -> Timings:
        """The stages' times, if the answer is ready now."""
        began, tokenized, ran, searched = self
        ready = perf_counter_ns()
        return Timings(
            (tokenized - began) / 1e3, (ran - tokenized) / 1e3, (searched - ran) / 1e3, (ready - searched) / 1e3
        )


class BasePipeline(ABC):
    """Answers texts with the parts of one bundle.

    Args:
        manifest: the bundle's manifest.
        tokenizer: the bundle's tokenizer.
        path: the model file, for error messages.
        kb: the knowledge base in its current state.
        policy: decides for each text whether to search.
        labels: names of all labels, first those that the student was trained on; None for the manifest's.
        classifier: the classifier that answers new labels; None where the neighbours do.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        path: Path,
        kb: Searchable,
        policy: RetrievalPolicy,
        labels: tuple[str, ...] | None = None,
        classifier: LinearClassifier | None = None,
    ) -> None:
        self._classifier = classifier
        self._labels = manifest.labels if labels is None else labels
        self._pair, self._blend = manifest.text_pair, manifest.blend
        self._new = len(self._labels) - len(manifest.labels)
        self._tokenizer, self._path, self._kb, self.policy = tokenizer, path, kb, policy
        self._with_neighbours = self._alone = None
        if manifest.abstention is not None and not self._new:  # the sets were fitted for the manifest's labels
            gated = policy.threshold is not None
            self._with_neighbours, self._alone = manifest.abstention.set_thresholds(gated)

    @property
    @abstractmethod
    def search(self) -> SearchMethod | None:
        """How it searches; None if it never does."""

    @abstractmethod
    def answer(self, text: Text) -> Prediction:
        """Answer one text.

        Args:
            text: a text or a pair.

        Raises:
            TextError: the text cannot be answered.
            ModelError: the student cannot run, or its output is not a distribution.
            BundleError: the tokenizer fails on the text, or the keys or soft labels that were found are damaged.
        """

    def _blended(self, own: Floats, embedding: Floats, found: SearchResult, clock: Clock, tokens: Tokens) -> Prediction:
        """The blend of the student and the rows that were found.

        Raises:
            ModelError: the student's output is not a distribution.
            BundleError: the keys or soft labels that were found are damaged.
        """
        mix = mixed(self._kb, own, found, self._blend, classified=self._classified(embedding))
        neighbours = Neighbours(self._kb, found, self._blend.tau, self._labels)
        if not (_is_distribution(mix.probabilities) and _least(mix.retrieval_probabilities) >= 0):
            raise self._broken(own, found)
        best = int(mix.probabilities.argmax())
        return Prediction(
            label=self._labels[best],
            probability=float(mix.probabilities[best]),
            probabilities=mix.probabilities,
            student_probabilities=self._widened(own),
            retrieval_probabilities=mix.retrieval_probabilities,
            reason=None,
            student_weight=mix.student_weight,
            timings=clock.timings(),
            labels=self._labels,
            neighbours=neighbours,
            nearest=found.similarities.item(0),
            set_thresholds=self._with_neighbours,
            edited=(mix.new, mix.pinned),
            new_labels=self._new,
            classified=self._classifier is not None,
            truncated=tokens.truncated,
            tokens=len(tokens.ids),
        )

    def _classified(self, embedding: Floats) -> Floats | None:
        """The probabilities of the classifier of new labels; None where the neighbours answer new labels."""
        return None if self._classifier is None else self._classifier.probabilities(embedding, len(self._labels))

    def _no_direction(self, found: str | None) -> ModelError:
        message = "the student's embedding is not a number"
        return ModelError(message, path=self._path, found=f"an embedding with {found}", remedy=_AGAIN)

    def _widened(self, own: Floats) -> Floats:
        """The student's probabilities over all labels: 0 for labels that it was not trained on."""
        return np.concatenate([own, np.zeros(self._new, np.float32)]) if self._new else own

    def _broken(self, own: Floats, found: SearchResult | None) -> ReaugkdError:
        """The error for an answer that is not a distribution, which names the damaged part.

        A bundle that was opened without verification may hold anything, and a hash does not prove that a file is valid.
        """
        if found is None or not _is_distribution(own):
            values = "NaN" if np.isnan(own).any() else f"{own.min():.4g} to {own.max():.4g}, sum {own.sum():.4g}"
            return ModelError("the student's output is not a distribution", path=self._path, found=values)
        if not np.isfinite(found.similarities).all():
            return BundleError("a similarity is not a number", path=INDEX_FILE, remedy=_AGAIN)
        return BundleError("a neighbour's soft label is not a distribution", path=SOFT_LABELS_FILE, remedy=_AGAIN)


class Pipeline(BasePipeline):
    """The steps one by one: the student's run, then search and blend.

    Args:
        manifest: same as `BasePipeline`.
        tokenizer: same as `BasePipeline`.
        student: the session to run.
        kb: same as `BasePipeline`.
        policy: same as `BasePipeline`.
        labels: same as `BasePipeline`.
        classifier: same as `BasePipeline`.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        student: StudentSession,
        kb: Searchable,
        policy: RetrievalPolicy,
        labels: tuple[str, ...] | None = None,
        classifier: LinearClassifier | None = None,
    ) -> None:
        super().__init__(manifest, tokenizer, student.path, kb, policy, labels, classifier)
        self._student = student

    @property
    def search(self) -> SearchMethod | None:
        """``"usearch"``, or None."""
        return "usearch" if self.policy.off is None else None

    def answer(self, text: Text) -> Prediction:
        """Answer one text; same as `BasePipeline.answer`."""
        began = perf_counter_ns()
        tokens = self._tokenizer.tokens(*checked_input(text, self._pair))
        tokenized = perf_counter_ns()
        student = self._student.answer(tokens)
        ran = perf_counter_ns()
        reason = self.policy.reason_to_skip(student.top, ran - began)
        if reason is not None:
            answer = self._unblended(student, reason, Clock(began, tokenized, ran, ran), tokens)
            self.policy.learn(None)
            return answer
        found = self._search(student.embedding)
        clock = Clock(began, tokenized, ran, perf_counter_ns())
        answer = self._blended(student.probabilities, student.embedding, found, clock, tokens)
        self.policy.learn(perf_counter_ns() - ran)
        return answer

    def _unblended(self, student: StudentAnswer, reason: Reason, clock: Clock, tokens: Tokens) -> Prediction:
        """The answer of the student alone.

        Raises:
            ModelError: its output is not a distribution.
        """
        if not 0.0 < student.top < 1.0 + ROUNDING:  # false for NaN; the golden texts checked that they sum to 1
            raise self._broken(student.probabilities, None)
        probabilities, embedding = self._widened(student.probabilities), student.embedding
        neighbours = NO_NEIGHBOURS
        if reason == "weight":
            neighbours = Neighbours(self._kb, lambda: self._search(embedding), self._blend.tau, self._labels)
        return Prediction(
            label=self._labels[student.best],
            probability=student.top,
            probabilities=probabilities,
            student_probabilities=probabilities,
            retrieval_probabilities=None,
            reason=reason,
            student_weight=1.0,
            timings=clock.timings(),
            labels=self._labels,
            neighbours=neighbours,
            set_thresholds=self._alone,
            truncated=tokens.truncated,
            tokens=len(tokens.ids),
        )

    def _search(self, embedding: Floats) -> SearchResult:
        try:
            return self._kb.search(embedding, self._blend.k)
        except UsageError as error:  # the query has no direction
            raise self._no_direction(error.found) from error


def mixed(
    kb: Searchable,
    student: Floats,
    found: SearchResult,
    config: BlendConfig,
    pinned: bool = True,
    classified: Floats | None = None,
) -> Blended:
    """Blend the student's probabilities with the soft labels of retrieved rows.

    Args:
        kb: the knowledge base that was searched.
        student: float32 [b], the student's probabilities of the labels that it was trained on.
        found: the rows.
        config: the settings of the blend.
        pinned: whether pinned rows take precedence over other rows.
        classified: float32 [c], the probabilities of the classifier of new labels; None where there is none in use.
    """
    rows, similarities = found
    labels, pins = kb.soft_labels.take(rows), kb.pins
    if pins is None and kb.num_labels == len(student):
        return blend(student, similarities, labels, config)
    pinned_rows = pins[rows] if pinned and pins is not None else None
    odds = kb.new_label_odds
    return blend_edited(student, similarities, labels, config, len(student), pinned_rows, rows, odds, classified)


def _is_distribution(probabilities: Floats) -> bool:
    """Whether [c] are probabilities; False with NaN."""
    return bool(_least(probabilities) >= 0 and abs(_sum(probabilities) - 1) < ROUNDING)
