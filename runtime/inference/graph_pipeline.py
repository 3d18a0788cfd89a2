"""The pipeline of one text with one run of the model: search and blend are nodes of the student's graph.

Rows that edits added since the last compaction are not in the graph. They are compared with the text after the run, and
the blend is then computed in numpy, because edits may pin rows and add labels.
"""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from ...kb.knowledge_base import KnowledgeBase
from ...kb.linear_classifier import LinearClassifier
from ...kb.searchable import Searchable, SearchResult
from ..bundle.manifest import Manifest
from .neighbours import Neighbours
from .pipeline import ROUNDING, BasePipeline, Clock, Floats
from .prediction import Prediction
from .retrieval_policy import RetrievalPolicy, SearchMethod
from .session.retrieval_session import RetrievalSession
from .text.inputs import Text, checked_input
from .text.tokenizer import TextTokenizer


class GraphPipeline(BasePipeline):
    """A pipeline that searches for every text, in the run of the model.

    Args:
        manifest: the bundle's manifest.
        tokenizer: the bundle's tokenizer.
        session: the session to run, with the rows of the last compaction.
        kb: the knowledge base in its current state.
        labels: names of all labels.
        classifier: same as `BasePipeline`.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        session: RetrievalSession,
        kb: Searchable,
        labels: tuple[str, ...],
        classifier: LinearClassifier | None = None,
    ) -> None:
        super().__init__(manifest, tokenizer, session.path, kb, RetrievalPolicy(), labels, classifier)
        self._session, self._tau = session, np.float32(manifest.blend.tau)
        self._blends = session.blends and isinstance(kb, KnowledgeBase)

    @property
    def search(self) -> SearchMethod:
        """``"graph"``."""
        return "graph"

    def answer(self, text: Text) -> Prediction:
        """Answer one text; same as `BasePipeline.answer`."""
        began = perf_counter_ns()
        tokens = self._tokenizer.tokens(*checked_input(text, self._pair))
        tokenized = perf_counter_ns()
        if not self._blends:
            own, embedding, scaled, rows = self._session.find(tokens)
            ran = perf_counter_ns()
            self._check(embedding)
            nearest = self._kb.merge_edits(SearchResult(rows, scaled * self._tau), embedding, self._blend.k)
            clock = Clock(began, tokenized, ran, perf_counter_ns())
            return self._blended(own, embedding, nearest, clock, tokens)
        answer = self._session.blend(tokens)
        ran = perf_counter_ns()
        own, embedding, scaled, rows = answer.found
        self._check(embedding)
        tau = self._tau

        def found() -> SearchResult:  # most callers do not look at the neighbours, and numpy takes 5 us here
            return SearchResult(rows, scaled * tau)

        if not 0.0 < answer.top < 1.0 + ROUNDING:  # false for NaN
            raise self._broken(own, found())
        return Prediction(
            label=self._labels[answer.best],
            probability=answer.top,
            probabilities=answer.probabilities,
            student_probabilities=own,
            retrieval_probabilities=answer.retrieval_probabilities,
            reason=None,
            student_weight=answer.student_weight,
            timings=Clock(began, tokenized, ran, ran).timings(),
            labels=self._labels,
            neighbours=Neighbours(self._kb, found, self._blend.tau, self._labels),
            nearest=scaled.item(0) * float(tau),
            set_thresholds=self._with_neighbours,
            truncated=tokens.truncated,
            tokens=len(tokens.ids),
        )

    def _check(self, embedding: Floats) -> None:
        """Check that the embedding has a direction: quantization turns NaN into any number.

        Raises:
            ModelError: it has none.
        """
        # It has length 1. A length that was zero, infinite or NaN made every component NaN or 0.
        if (
            not 0.0 < abs(embedding.item(0)) < 1.0 + ROUNDING
            and not abs(float(embedding.dot(embedding)) - 1.0) < ROUNDING
        ):
            raise self._no_direction(f"components from {embedding.min()} to {embedding.max()}")
