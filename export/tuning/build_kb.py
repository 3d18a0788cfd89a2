"""Build a knowledge base from rows, and tune blend and search on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...kb.index.config import IndexConfig
from ...kb.index.exact_search import EfSearchChoice, least_ef_search
from ...kb.knowledge_base import KnowledgeBase
from ...kb.soft_labels import LABEL_LOSS, SoftLabels
from ...kb.texts import TextDigests
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.decision.blending import blend_batch, softmax_many
from ...runtime.inference.session.threads import default_threads
from ..onnx.quality import StudentOutputs
from ..recipe import RetrievalRecipe
from ..types import Floats
from .groups import related_inputs
from .tune import HeldOut, K, Tuning, soft_labels, tune_blend

TUNING_EF_SEARCH = 256
"""ef_search while the blend is tuned: large, so that rows missed by the index do not affect the choice."""

MOST_QUERIES = 1000
"""Largest number of queries to choose ef_search on."""

_BLOCK = 128  # number of texts blended at once: their soft labels [128, k, c] take some MB


@dataclass(frozen=True)
class KbRows:
    """n rows of a knowledge base before they are indexed.

    Args:
        inputs: texts or pairs.
        logits: float32 [n, c], the teacher's logits.
        teacher_keys: [n, d], the teacher's keys, L2-normalised.
        queries: [n, d], the student's embeddings of the rows, L2-normalised.
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
        """Return the keys of the recipe, [n, d]."""
        return self.queries if recipe.keys == "student" else self.teacher_keys

    def groups(self) -> NDArray[np.int64]:
        """Return the group of related rows of each row, [n]."""
        return related_inputs(self.inputs)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> KbRows:
        """Select rows by index or by mask."""
        chosen = np.arange(len(self))[rows]
        arrays = {name: getattr(self, name)[chosen] for name in ("logits", "teacher_keys", "queries", "gold")}
        return KbRows([self.inputs[row] for row in chosen], **arrays)

    def joined(self, other: KbRows) -> KbRows:
        """Append the rows of another."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("logits", "teacher_keys", "queries", "gold")
        }
        return KbRows([*self.inputs, *other.inputs], **arrays)


KbTexts = Literal["plain", "hash", "none"]


@dataclass(frozen=True)
class KbStorageConfig:
    """Settings for the storage of a knowledge base.

    Args:
        dtype: type of the stored keys, see `IndexConfig`.
        connectivity: edges per node of the graph, see `IndexConfig`.
        texts: ``"plain"`` stores the rows' texts, for explanations; ``"hash"`` stores digests (`TextDigests`), by which
            a given text can be found; ``"none"`` stores neither.
        label_loss: largest loss of a compressed form of the soft labels (`kb.soft_labels`).
    """

    dtype: str = IndexConfig.dtype
    connectivity: int = IndexConfig.connectivity
    texts: KbTexts = "plain"
    label_loss: float = LABEL_LOSS


def build_kb(
    rows: KbRows,
    recipe: RetrievalRecipe,
    blend: BlendConfig,
    store: KbStorageConfig,
    ef_search: int = TUNING_EF_SEARCH,
    progress: Callable[[int, int], bool] | None = None,
) -> KnowledgeBase:
    """Build a knowledge base of rows.

    Args:
        rows: the rows.
        recipe: the source of the keys.
        blend: the share of gold of the soft labels.
        store: settings of the storage.
        ef_search: breadth of a search.
        progress: see `KnowledgeBase.build`.
    """
    keys = rows.keys(recipe)
    return KnowledgeBase.build(
        keys,
        soft_labels(rows.logits, rows.gold, blend.gold_share),
        config=IndexConfig(
            ndim=keys.shape[1], dtype=store.dtype, connectivity=store.connectivity, expansion_search=ef_search
        ),
        gold=rows.gold,
        texts=_kept(rows.inputs, store.texts),
        label_loss=store.label_loss,
        progress=progress,
    )


def _kept(texts: Sequence[str | tuple[str, str]], how: KbTexts) -> Sequence[str | tuple[str, str]] | TextDigests | None:
    if how == "plain":
        return texts
    return TextDigests.of(texts) if how == "hash" else None


def tune(
    kb: KnowledgeBase,
    rows: KbRows,
    heldout: KbRows,
    answers: StudentOutputs,
    recipe: RetrievalRecipe,
) -> Tuning:
    """Tune the blend on the neighbours of held-out rows.

    Args:
        kb: the knowledge base of ``rows``; its soft labels are not used.
        rows: the rows of the knowledge base, without held-out rows.
        heldout: the held-out rows.
        answers: the student's outputs for the held-out rows.
        recipe: the options to choose from.
    """
    found, similarities = kb.search_many(answers.queries, K, threads=default_threads())
    asking = HeldOut(answers.logits, similarities, rows.logits[found], heldout.gold, rows.gold[found])
    return tune_blend(asking, recipe.gold_shares)


def tune_ef_search(
    kb: KnowledgeBase, rows: KbRows, queries: NDArray[np.float32], recipe: RetrievalRecipe, k: int
) -> EfSearchChoice:
    """Choose a knowledge base's ef_search for k neighbours (`exact_search.least_ef_search`) and set it.

    Args:
        kb: the knowledge base of ``rows``; changed in place.
        rows: the rows of the knowledge base.
        queries: [n, d], the student's queries of other rows; the first `MOST_QUERIES` are used.
        recipe: the source of the keys.
        k: number of neighbours.
    """
    chosen = least_ef_search(kb.index, rows.keys(recipe), queries[:MOST_QUERIES], k)
    kb.index.set_ef_search(chosen.expansion_search)
    return chosen


class Neighbours(NamedTuple):
    """The k nearest rows of a knowledge base for n queries: rows int64 [n, k], and similarities [n, k], descending."""

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]


@dataclass(frozen=True)
class Blends:
    """Probabilities [n, c] of the student, of its neighbours and of the blend, float64."""

    student: Floats
    retrieval: Floats
    blend: Floats


def blend_many(kb: KnowledgeBase, blend: BlendConfig, answers: StudentOutputs) -> Blends:
    """Compute a bundle's answers for many rows at once; they equal the runtime's except for rounding.

    Args:
        kb: the knowledge base.
        blend: the blend.
        answers: the student's outputs for the rows.
    """
    found, similarities = kb.search_many(answers.queries, blend.k, threads=default_threads())
    return blend_found(found, similarities, kb.soft_labels, blend, answers.logits)


def blend_found(
    found: NDArray[np.int64],
    similarities: NDArray[np.float32],
    labels: SoftLabels,
    blend: BlendConfig,
    logits: NDArray[np.float32],
) -> Blends:
    """Compute a bundle's answers from given neighbours; see `blend_many`.

    Args:
        found: [n, k], rows of the knowledge base.
        similarities: [n, k], descending.
        labels: soft labels of the knowledge base.
        blend: the blend.
        logits: [n, c], the student's logits.
    """
    student = softmax_many(logits.astype(np.float64), blend.student_temperature).astype(np.float64, copy=False)
    parts = [slice(start, start + _BLOCK) for start in range(0, len(found), _BLOCK)]
    blended = [
        blend_batch(student[rows], similarities[rows], np.stack([labels.take(one) for one in found[rows]]), blend)
        for rows in parts
    ]
    retrieved = np.concatenate([one.retrieval_probabilities for one in blended])
    return Blends(student, retrieved, np.concatenate([one.probabilities for one in blended]))
