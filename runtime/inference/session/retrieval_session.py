"""A session that answers with retrieval: the student's model, with search and blend as nodes of its graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError, UsageError
from ....kb.knowledge_base import SOFT_LABELS_FILE, KnowledgeBase, check_distributions
from ...bundle.onnx_safety import output_names
from ...decision.blend_config import BlendConfig
from ...graph.retrieval import BEST, BLEND, RETRIEVED, ROWS, SCALED, WEIGHT, Tables, retrieval_graph
from ..text.word_ids import Tokens
from .model_session import PROBABILITIES, ModelSession
from .saturation import int8_saturates

Floats = NDArray[np.float32]
_AGAIN = "Export the bundle again."


class Found(NamedTuple):
    """The student's part of a run, and the search: the student's probabilities [b], the embedding [d], and the
    neighbours' similarities divided by tau, and rows, both [k].
    """

    student: Floats
    embedding: Floats
    scaled: Floats
    rows: NDArray[Any]


class Answered(NamedTuple):
    """All of a run: as `Found`, and the largest probability of the blend, its class, the blend and the neighbours'
    probabilities, both [c], and the student's weight.
    """

    found: Found
    top: float
    best: int
    probabilities: Floats
    retrieval_probabilities: Floats
    student_weight: float


class RetrievalSession(ModelSession):
    """A `ModelSession` whose run also finds the nearest rows of a knowledge base.

    Args:
        path: the student's model file, for error messages.
        kb: the rows, at least one.
        config: the settings of the blend.
        classes: b, the number of labels that the student was trained on.
        threads: threads that share one run.
        model: the content of the model file.
        profile: first part of the name of a profile, which ``session.end_profiling`` writes; None for no profile.

    Attributes:
        blends: whether the run blends too. It does unless edits added labels or pinned rows, before the last
            compaction.

    Raises:
        BundleError: the model cannot be loaded, or its inputs or outputs are wrong; or the soft labels are damaged.
    """

    def __init__(
        self,
        path: Path,
        kb: KnowledgeBase,
        config: BlendConfig,
        classes: int,
        threads: int,
        model: bytes,
        profile: Path | None = None,
    ) -> None:
        tables = replace(tables_of(kb), lists=kb.lists)
        own = PROBABILITIES if PROBABILITIES in output_names(model) else None
        graph = retrieval_graph(tables, config, own, classes, single=True, saturates=int8_saturates())
        super().__init__(path, threads, graph.appended_to(model, path.resolve().name), profile, graph.arrays)
        self.blends = tables.num_labels == classes and kb.pins is None
        self._share = config.student_weight
        self._search = [self._own, "embedding", SCALED, ROWS]
        self._all = [*self._search, BEST, BLEND, RETRIEVED, *([] if config.weight is None else [WEIGHT])]

    def find(self, tokens: Tokens) -> Found:
        """Run one text, without the outputs of the blend.

        Raises:
            ModelError: same as `run`.
        """
        return Found(*self._outputs(self._search, tokens))

    def blend(self, tokens: Tokens) -> Answered:
        """Run one text; only if ``blends``.

        Raises:
            ModelError: same as `run`.
        """
        own, embedding, scaled, rows, found, blend, retrieved, *weight = self._outputs(self._all, tokens)
        share, best = weight[0].item(0) if weight else self._share, int(found)
        return Answered(Found(own, embedding, scaled, rows), blend.item(best), best, blend, retrieved, share)


def tables_of(kb: KnowledgeBase) -> Tables:
    """The keys and soft labels of a knowledge base for the graph.

    Raises:
        BundleIntegrityError: the index is damaged.
        BundleError: the soft labels are not distributions.
    """
    stored = kb.soft_labels.stored
    if stored.dtype == np.float16:  # the other forms were checked when they were opened
        try:
            check_distributions(stored)
        except UsageError as error:
            message = "a neighbour's soft label is not a distribution"
            raise BundleError(
                message, path=SOFT_LABELS_FILE, row=error.row, found=error.found, remedy=_AGAIN
            ) from error
    return Tables(kb.index.stored(), stored, kb.num_labels)


def graph_bytes(kb: KnowledgeBase) -> int:
    """Bytes of the keys and soft labels of a knowledge base in the graph."""
    key = kb.ndim if kb.config.dtype == "i8" else 4 * kb.ndim
    return len(kb) * (key + 4 + 4 * kb.num_labels)
