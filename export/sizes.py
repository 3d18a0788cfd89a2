"""What a compact knowledge base keeps of what retrieval gains, at each size, on a bundle's held-out rows.

A size is measured with an exact search in its prototypes of the rows that know nothing of the held-out ones
(`HeldOutRows.unrelated`), as the full knowledge base is. What is kept is the share of the gain over the student alone:
of the negative log-likelihood, and of the accuracy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kb.compaction import Compaction, Prototypes
from ..kb.index import IndexConfig
from ..kb.recall import exact_search
from ..kb.soft_labels import LABEL_LOSS, encode
from ..runtime.heldout import HeldOutRows
from ..runtime.manifest import BlendConfig
from ..runtime.metrics import row_nll
from .retrieval import Blends, blend_found

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

STEP = 2**-0.5
"""Each size of a frontier is this times the one before."""

SMALLEST = 0.01
"""The share of the rows at which a frontier ends."""

ROW_BYTES = 20  # of the row table


@dataclass(frozen=True)
class Answered:
    """A system's answers to the held-out rows.

    Attributes:
        labels: int64 [n], the most probable.
        right: [n], whether it is the gold one.
        nll: float64 [n], nats.
    """

    labels: NDArray[np.int64]
    right: Bools
    nll: Floats

    @classmethod
    def of(cls, probabilities: Floats, gold: NDArray[np.int64]) -> Answered:
        """The answers of probabilities [n, c]."""
        labels = probabilities.argmax(axis=1)
        return cls(labels, labels == gold, row_nll(probabilities, gold))

    def take(self, rows: Bools) -> Answered:
        """Some of the rows."""
        return Answered(self.labels[rows], self.right[rows], self.nll[rows])


@dataclass(frozen=True)
class Size:
    """A size and what it is worth.

    Attributes:
        rows: prototypes.
        bytes: of the whole knowledge base: index, soft labels, row table, texts; an estimate to about a hundredth.
        accuracy: on the held-out rows, 0 to 1.
        nll: mean negative log-likelihood, nats.
        kept_accuracy: share of retrieval's gain in accuracy; None where the full knowledge base gains none.
        kept_nll: share of its gain in log-likelihood; None where there is none.
        agreement: share of the held-out rows with the full knowledge base's label.
    """

    rows: int
    bytes: int
    accuracy: float
    nll: float
    kept_accuracy: float | None
    kept_nll: float | None
    agreement: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


class Measure:
    """Measures sizes of one compaction.

    Args:
        compaction: the knowledge base's, its ``apart`` the held-out rows' ``unrelated``.
        heldout: the rows to measure on.
        blend: how the bundle answers.
        keep_texts: whether texts count.
    """

    def __init__(self, compaction: Compaction, heldout: HeldOutRows, blend: BlendConfig, keep_texts: bool) -> None:
        self._compaction, self._heldout, self._blend = compaction, heldout, blend
        self._text_bytes = compaction.kb.nbytes()["texts"] / max(len(compaction.kb), 1) if keep_texts else 0.0
        full = self.blends(compaction.prototypes(len(compaction.kb)))
        self.student = Answered.of(full.student, heldout.gold)
        self.full = Answered.of(full.blend, heldout.gold)

    def blends(self, prototypes: Prototypes) -> Blends:
        """What student, neighbours and blend say of the held-out rows."""
        heldout, known = self._heldout, prototypes.first()
        found, similarities = exact_search(known.keys, heldout.queries, self._blend.k)
        labels = encode(known.soft_labels, LABEL_LOSS)
        return blend_found(found, similarities, labels, self._blend, heldout.logits)

    def answered(self, count: int) -> Answered:
        """The blend's answers with ``count`` prototypes."""
        return Answered.of(self.blends(self._compaction.prototypes(count)).blend, self._heldout.gold)

    def size(self, count: int, answered: Answered, config: IndexConfig) -> Size:
        """A size by its answers, its bytes as with an index of that kind."""
        gains = self.student.nll.mean() - self.full.nll.mean(), self.full.right.mean() - self.student.right.mean()
        kept_nll, kept_accuracy = (
            float(kept / gain) if gain > 0 else None
            for kept, gain in zip(
                (self.student.nll.mean() - answered.nll.mean(), answered.right.mean() - self.student.right.mean()),
                gains,
                strict=True,
            )
        )
        return Size(
            count,
            round(count * self.row_bytes(config)),
            float(answered.right.mean()),
            float(answered.nll.mean()),
            kept_accuracy,
            kept_nll,
            float((answered.labels == self.full.labels).mean()),
        )

    def row_bytes(self, config: IndexConfig) -> float:
        """About what a prototype takes, with what the graph above it takes."""
        labels = encode(np.asarray(self._compaction.kb.soft_labels[:8192]), LABEL_LOSS)
        key = config.ndim * {"f32": 4, "i8": 1}.get(config.dtype, 2)
        # Of usearch's file: key number, level (twice) and 2 M edges a node, and M a level above, each with its count.
        graph = 16 + 8 * config.connectivity + (4 + 4 * config.connectivity) / max(config.connectivity - 1, 1)
        return key + graph + labels.nbytes / max(len(labels), 1) + ROW_BYTES + self._text_bytes


def counts_of(compaction: Compaction) -> list[int]:
    """The sizes of a frontier, from all rows down."""
    rows = len(compaction.kb)
    least = max(compaction.merges.fewest, round(SMALLEST * rows), 1)
    counts = [rows]
    while round(counts[0] * STEP ** len(counts)) >= least:
        counts.append(round(counts[0] * STEP ** len(counts)))
    return counts
