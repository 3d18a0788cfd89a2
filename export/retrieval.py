"""What goes into a knowledge base, and the blend that is tuned on what a student finds in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kb.index import IndexConfig
from ..kb.knowledge_base import KnowledgeBase
from ..runtime.blend import softmax_many
from ..runtime.manifest import BlendConfig
from ..runtime.threads import default_threads
from ..runtime.weight import features_many
from .groups import related_inputs
from .quality import Answers
from .recipe import RetrievalRecipe
from .tuning import K_GRID, HeldOut, Tuning, soft_labels, tune_blend

Progress = Callable[[int, int], bool]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Knowledge:
    """n rows that a knowledge base can hold.

    Args:
        inputs: texts or pairs.
        logits: [n, c], the teacher's, float32.
        teacher_keys: [n, d], L2-normalised.
        queries: [n, d], the student's own embeddings of the rows, L2-normalised.
        gold: [n], gold labels, -1 for none.
    """

    inputs: Sequence[str | tuple[str, str]]
    logits: NDArray[np.float32]
    teacher_keys: NDArray[np.float32]
    queries: NDArray[np.float32]
    gold: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inputs)

    def keys(self, recipe: RetrievalRecipe) -> NDArray[np.float32]:
        """What the rows are found by, [n, d]."""
        if recipe.keys == "student":
            return self.queries
        if recipe.keys == "teacher":
            return self.teacher_keys
        both = self.queries + self.teacher_keys
        # Opposite keys cancel out: such a row is found by the student's.
        lengths = np.linalg.norm(both, axis=1, keepdims=True)
        return np.where(lengths > 1e-6, both / np.maximum(lengths, 1e-6), self.queries).astype(np.float32)

    def groups(self) -> NDArray[np.int64]:
        """The group of related rows that each row is in, [n]."""
        return related_inputs(self.inputs)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Knowledge:
        """Some of the rows."""
        chosen = np.arange(len(self))[rows]
        arrays = {name: getattr(self, name)[chosen] for name in ("logits", "teacher_keys", "queries", "gold")}
        return Knowledge([self.inputs[row] for row in chosen], **arrays)

    def joined(self, other: Knowledge) -> Knowledge:
        """These rows, then the other's."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("logits", "teacher_keys", "queries", "gold")
        }
        return Knowledge([*self.inputs, *other.inputs], **arrays)


@dataclass(frozen=True)
class Store:
    """How a knowledge base is written.

    Args:
        dtype: of the stored keys.
        connectivity: edges a row in the index's graph.
        keep_texts: store the rows' texts, for explanations.
    """

    dtype: str = "f16"
    connectivity: int = 16
    keep_texts: bool = True


def build_kb(
    rows: Knowledge, recipe: RetrievalRecipe, blend: BlendConfig, store: Store, progress: Progress | None = None
) -> KnowledgeBase:
    """A knowledge base of the rows, their soft labels as the blend says (temperature, share of gold)."""
    keys = rows.keys(recipe)
    return KnowledgeBase.build(
        keys,
        soft_labels(rows.logits, rows.gold, blend.label_temperature, blend.gold_share),
        config=IndexConfig(ndim=keys.shape[1], dtype=store.dtype, connectivity=store.connectivity),
        gold=rows.gold,
        texts=rows.inputs if store.keep_texts else None,
        progress=progress,
    )


def tune(kb: KnowledgeBase, rows: Knowledge, heldout: Knowledge, answers: Answers, recipe: RetrievalRecipe) -> Tuning:
    """Tune the blend on what the held-out rows find.

    Args:
        kb: of ``rows``; which soft labels it has does not matter.
        rows: its rows, none of them held out.
        heldout: labelled rows.
        answers: the student's to the held-out rows.
        recipe: what may be chosen from.
    """
    found, similarities = kb.search_many(answers.queries, K_GRID[-1], threads=default_threads())
    return tune_blend(
        HeldOut(answers.logits, similarities, rows.logits[found], heldout.gold, rows.gold[found], heldout.groups()),
        recipe.weight,
        label_temperatures=recipe.label_temperatures,
        gold_shares=recipe.gold_shares,
        cautious=recipe.cautious,
    )


@dataclass(frozen=True)
class Blends:
    """Probabilities [n, c] of the student, of its neighbours and of both, float64."""

    student: Floats
    retrieval: Floats
    blend: Floats


def blend_many(kb: KnowledgeBase, blend: BlendConfig, answers: Answers) -> Blends:
    """What a bundle of this knowledge base and blend answers, for many rows at once: as the runtime, to rounding."""
    found, similarities = kb.search_many(answers.queries, blend.k, threads=default_threads())
    student = softmax_many(answers.logits.astype(np.float64), blend.student_temperature).astype(np.float64, copy=False)
    shares = softmax_many(similarities.astype(np.float64), blend.tau)
    retrieved = np.stack(
        [share @ kb.soft_labels[rows].astype(np.float64) for share, rows in zip(shares, found, strict=True)]
    )
    retrieved /= retrieved.sum(axis=1, keepdims=True)
    weights: NDArray[np.floating] = np.full(len(student), blend.student_weight)
    if blend.weight is not None:
        top, gap = similarities[:, 0], similarities[:, 0] - similarities[:, -1]
        weights = blend.weight.weight_many(features_many(student, retrieved, top, gap))
    weights = weights[:, None]
    return Blends(student, retrieved, weights * student + (1 - weights) * retrieved)
