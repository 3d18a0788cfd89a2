"""One text's way to its answer: tokens, student, and unless something says otherwise neighbours and their blend.

The order of the steps is that of the clock: what the student says is known before the neighbours are looked up, so the
gate (`gate`) and the budget (`budget`) decide between the two.
"""

from __future__ import annotations

from copy import copy
from time import perf_counter_ns
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, ModelError, ReaugkdError, UsageError
from ...kb.knowledge_base import INDEX_FILE, SOFT_LABELS_FILE
from ...kb.searchable import Searchable
from ..bundle.manifest import Manifest
from ..decision.blend_config import BlendConfig
from ..decision.blending import Blended, blend, blend_edited
from ..decision.conformal import PredictionSets
from .inputs import Text, checked_input
from .latency_budget import Budget
from .prediction import Prediction, Reason, Retrieval, Timings
from .student import StudentSession
from .tokenizer import TextTokenizer

RetrievalMode = Literal["always", "gated", "never"]
RETRIEVAL_MODES: tuple[RetrievalMode, ...] = ("always", "gated", "never")

_ROUNDING = 1e-3
_least = np.minimum.reduce  # the ufuncs' own methods, as in `blend`
_sum = np.add.reduce


class Pipeline:
    """Answers texts from the parts of one bundle.

    Args:
        manifest: the bundle's.
        tokenizer: its.
        kb: its knowledge base, as it is now.
        retrieval: ``"always"``, ``"gated"`` (the manifest must have a gate) or ``"never"``.
        budget: what a text may take; None for any time.
        labels: all labels' names, those that the student was taught first; None for the manifest's.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        kb: Searchable,
        retrieval: RetrievalMode,
        budget: Budget | None = None,
        labels: tuple[str, ...] | None = None,
    ) -> None:
        self._labels = manifest.labels if labels is None else labels
        self._pair, self._blend = manifest.text_pair, manifest.blend
        self._new = len(self._labels) - len(manifest.labels)
        self._tokenizer, self._kb, self.budget = tokenizer, kb, budget
        gate = manifest.gate if retrieval == "gated" else None
        self._threshold = None if gate is None else gate.threshold
        self._off: Reason | None = "never" if retrieval == "never" else None if len(kb) else "empty"
        self._abstention = manifest.abstention
        self._sets = self._sets_of(retrieval)

    def ungated(self) -> Pipeline:
        """The same without its gate: neighbours for every text, as far as the budget goes."""
        other = copy(self)
        other._threshold = None
        other._sets = self._sets_of("always")
        return other

    def _sets_of(self, retrieval: str) -> tuple[PredictionSets | None, PredictionSets | None]:
        """The prediction sets, which were fitted for the labels that the student was taught."""
        return (None, None) if self._abstention is None or self._new else self._abstention.sets_of(retrieval)

    def answer(self, student: StudentSession, text: Text) -> Prediction:
        """The answer to a text.

        Args:
            student: the session to run.
            text: a text or a pair.

        Raises:
            TextError: a text that cannot be answered.
            ModelError: the student cannot run, or computes no probabilities.
            BundleError: the tokenizer fails on the text, or keys or soft labels that were found are damaged.
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
            try:
                rows, similarities = self._kb.search(embedding, config.k)
            except UsageError as error:  # that the query has no direction
                raise _no_number(student, f"an embedding with {error.found}") from error
            searched = perf_counter_ns()
            mix = mixed(self._kb, own, rows, similarities, config)
            probabilities, retrieved, weights, share = mix[:4]
            edited = mix[4:]
            best = int(probabilities.argmax())
            probability = float(probabilities[best])
            found: Retrieval | tuple[()] = Retrieval(self._kb, rows, similarities, weights)
            if self._new:
                own = self._widened(own)
        else:
            searched = ran
            own = self._widened(own)
            probabilities, retrieved, found, share, edited = own, None, (), 1.0, (0.0, 0.0)
        if not (_usable(probabilities) and (retrieved is None or _least(retrieved) >= 0)):
            raise _unusable(student, own, None if reason else similarities)
        blended = perf_counter_ns()
        if self.budget is not None:
            self.budget.learn(blended - ran if reason is None else None)
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
            _edited=edited,
        )

    def _widened(self, own: NDArray[np.float32]) -> NDArray[np.float32]:
        """The student's probabilities, 0 for labels that it was not taught."""
        return np.concatenate([own, np.zeros(self._new, np.float32)]) if self._new else own

    def _unneeded(self, probability: float, spent_ns: int) -> Reason | None:
        """Why a text for which the student gives its label this much is answered by it alone; None where it is not."""
        if self._threshold is not None and probability >= self._threshold:
            return "sure"
        if self.budget is not None and not self.budget.affords(spent_ns):
            return "budget"
        return None


def mixed(
    kb: Searchable,
    student: NDArray[np.float32],
    rows: NDArray[np.int64],
    similarities: NDArray[np.float32],
    config: BlendConfig,
    pinned: bool = True,
) -> Blended:
    """The student's answer mixed with what was found for it.

    Args:
        kb: where it was found.
        student: float32 [b], the student's probabilities of the labels that it was taught.
        rows: [k] of the knowledge base.
        similarities: float32 [k].
        config: how to mix.
        pinned: whether pinned rows have more of a say than others.
    """
    labels, pins = kb.soft_labels.take(rows), kb.pins
    if pins is None and kb.num_labels == len(student):
        return blend(student, similarities, labels, config)
    nailed = pins[rows] if pinned and pins is not None else None
    return blend_edited(student, similarities, labels, config, len(student), nailed, rows, kb.new_label_odds)


def _no_number(student: StudentSession, found: str) -> ModelError:
    return ModelError(
        "the student computed no number", path=student.path, found=found, remedy="Export the bundle again."
    )


def _usable(probabilities: NDArray[np.float32]) -> bool:
    """Whether it is a distribution [c]; NaN is none."""
    return bool(_least(probabilities) >= 0 and abs(_sum(probabilities) - 1) < _ROUNDING)


def _unusable(
    student: StudentSession, own: NDArray[np.float32], similarities: NDArray[np.float32] | None
) -> ReaugkdError:
    """Whose fault it is: a bundle that was opened unverified may hold anything, and a hash says only who made it."""
    if similarities is None or not _usable(own):
        found = "NaN" if np.isnan(own).any() else f"{own.min():.4g} to {own.max():.4g}, sum {own.sum():.4g}"
        return ModelError("the student computed no probabilities", path=student.path, found=found)
    if not np.isfinite(similarities).all():
        return BundleError("a similarity is no number", path=INDEX_FILE, remedy="Export the bundle again.")
    return BundleError(
        "a neighbour's soft label is no distribution", path=SOFT_LABELS_FILE, remedy="Export the bundle again."
    )


def checked_mode(retrieval: str) -> RetrievalMode:
    """The mode of that name.

    Raises:
        UsageError: there is none.
    """
    for mode in RETRIEVAL_MODES:
        if retrieval == mode:
            return mode
    raise UsageError("the retrieval setting is unknown", found=retrieval, expected="always, gated or never")
