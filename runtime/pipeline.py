"""One text's way to its answer: tokens, student, and unless something says otherwise neighbours and their blend.

The order of the steps is that of the clock: what the student says is known before the neighbours are looked up, so the
gate (`gate`) and the budget (`budget`) decide between the two.
"""

from __future__ import annotations

from copy import copy
from time import perf_counter_ns
from typing import Literal

from ..errors import ModelError, UsageError
from ..kb.knowledge_base import KnowledgeBase
from .blend import blend
from .budget import Budget
from .manifest import Manifest
from .prediction import Prediction, Reason, Retrieval, Timings
from .student import StudentSession
from .text import Text, checked_input
from .tokenizer import TextTokenizer

RetrievalMode = Literal["always", "gated", "never"]
RETRIEVAL_MODES: tuple[RetrievalMode, ...] = ("always", "gated", "never")


class Pipeline:
    """Answers texts from the parts of one bundle.

    Args:
        manifest: the bundle's.
        tokenizer: its.
        kb: its knowledge base.
        retrieval: ``"always"``, ``"gated"`` (the manifest must have a gate) or ``"never"``.
        budget: what a text may take; None for any time.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        kb: KnowledgeBase,
        retrieval: RetrievalMode,
        budget: Budget | None = None,
    ) -> None:
        self._labels, self._pair, self._blend = manifest.labels, manifest.text_pair, manifest.blend
        self._tokenizer, self._kb, self._budget = tokenizer, kb, budget
        gate = manifest.gate if retrieval == "gated" else None
        self._threshold = None if gate is None else gate.threshold
        self._off: Reason | None = "never" if retrieval == "never" else None if len(kb) else "empty"
        self._abstention = manifest.abstention
        self._sets = (None, None) if self._abstention is None else self._abstention.sets_of(retrieval)

    def ungated(self) -> Pipeline:
        """The same without its gate: neighbours for every text, as far as the budget goes."""
        other = copy(self)
        other._threshold = None
        other._sets = (None, None) if self._abstention is None else self._abstention.sets_of("always")
        return other

    def answer(self, student: StudentSession, text: Text) -> Prediction:
        """The answer to a text.

        Args:
            student: the session to run.
            text: a text or a pair.

        Raises:
            TextError: a text that cannot be answered.
            ModelError: the student cannot run, or computes no number.
        """
        config = self._blend
        began = perf_counter_ns()
        encoding = self._tokenizer.encode(*checked_input(text, self._pair))
        tokenized = perf_counter_ns()
        own, embedding = student.answer(encoding, config.student_temperature)
        ran = perf_counter_ns()
        best = int(own.argmax())
        probability = float(own[best])
        reason = self._off or self._unneeded(probability, ran - began)
        if reason is None:
            rows, similarities = self._kb.search(embedding, config.k)
            searched = perf_counter_ns()
            soft_labels = self._kb.soft_labels.take(rows)
            probabilities, retrieved, weights, share = blend(own, similarities, soft_labels, config)
            best = int(probabilities.argmax())
            probability = float(probabilities[best])
            found: Retrieval | tuple[()] = Retrieval(self._kb, rows, similarities, weights)
        else:
            searched = ran
            probabilities, retrieved, found, share = own, None, (), 1.0
        if probability != probability:
            raise ModelError("the student computed no number", path=student.path, found="NaN")
        blended = perf_counter_ns()
        if self._budget is not None:
            self._budget.learn(blended - ran if reason is None else None)
        timings = Timings(
            (tokenized - began) / 1e3,
            (ran - tokenized) / 1e3,
            (searched - ran) / 1e3,
            (blended - searched) / 1e3,
        )
        labels = self._labels
        return Prediction(
            labels[best],
            probability,
            probabilities,
            own,
            retrieved,
            reason,
            share,
            timings,
            labels,
            found,
            _sets=self._sets[reason is not None],
        )

    def _unneeded(self, probability: float, spent_ns: int) -> Reason | None:
        """Why a text for which the student gives its label this much is answered by it alone; None where it is not."""
        if self._threshold is not None and probability >= self._threshold:
            return "sure"
        if self._budget is not None and not self._budget.affords(spent_ns):
            return "budget"
        return None


def checked_mode(retrieval: str) -> RetrievalMode:
    """The mode of that name.

    Raises:
        UsageError: there is none.
    """
    for mode in RETRIEVAL_MODES:
        if retrieval == mode:
            return mode
    raise UsageError("the retrieval setting is unknown", found=retrieval, expected="always, gated or never")
