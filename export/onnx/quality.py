"""Quality gate of the export: compare the quantized student with the float32 one on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QualityError
from ...kb.knowledge_base import KnowledgeBase
from ...runtime.inference.session.student import StudentSession
from ...runtime.inference.text.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Floors:
    """Quality floors of an exported student; an export that misses one is refused.

    Args:
        agreement: smallest share of held-out rows on which both students give the same label.
        accuracy_loss: largest loss of accuracy, 0 to 1.
        accuracy_loss_rows: number of rows that may always be lost, because one of few rows is a large share.
        neighbour_overlap: smallest share of the float32 student's neighbours that the quantized student finds too.
        split_otherwise: largest share of unseen texts that a smaller vocabulary may split into other tokens.
    """

    agreement: float = 0.95
    accuracy_loss: float = 0.01
    accuracy_loss_rows: int = 3
    neighbour_overlap: float = 0.3
    split_otherwise: float = 0.04


@dataclass(frozen=True)
class StudentOutputs:
    """A student's outputs for n rows: logits [n, c] and queries [n, d], float32."""

    logits: NDArray[np.float32]
    queries: NDArray[np.float32]

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> StudentOutputs:
        """Select the outputs for some of the rows, by index or by mask."""
        return StudentOutputs(self.logits[rows], self.queries[rows])

    def joined(self, other: StudentOutputs) -> StudentOutputs:
        """Append the outputs of another."""
        return StudentOutputs(
            np.concatenate([self.logits, other.logits]), np.concatenate([self.queries, other.queries])
        )


@dataclass(frozen=True)
class QualityReport:
    """The cost of quantization, measured on ``rows`` held-out rows.

    Args:
        rows: number of held-out rows.
        label_agreement: share of the rows with the same label from both students.
        accuracy_float32: accuracy of the float32 student.
        accuracy: accuracy of the student in the bundle.
        neighbour_overlap: mean share of the k nearest keys that both queries find.
        query_cosine: mean cosine similarity of both queries.
        k: number of neighbours compared.
    """

    rows: int
    label_agreement: float
    accuracy_float32: float
    accuracy: float
    neighbour_overlap: float
    query_cosine: float
    k: int

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def failures(self, floors: Floors) -> list[str]:
        """Return a sentence for each missed floor; empty if the student passes."""
        # NaN compares as False, so comparisons are written so that it misses the floor.
        missed = []
        if not self.label_agreement >= floors.agreement:
            missed.append(f"label agreement {self.label_agreement:.4f} is below {floors.agreement}")
        lost = self.accuracy_float32 - self.accuracy
        if not (lost <= floors.accuracy_loss or lost * self.rows < floors.accuracy_loss_rows + 0.5):
            missed.append(f"accuracy fell by {lost:.4f}, more than {floors.accuracy_loss}")
        if not self.neighbour_overlap >= floors.neighbour_overlap:
            missed.append(f"neighbour overlap {self.neighbour_overlap:.4f} is below {floors.neighbour_overlap}")
        return missed

    def require(self, floors: Floors) -> None:
        """Check the floors.

        Raises:
            QualityError: a floor is missed.
        """
        if missed := self.failures(floors):
            raise QualityError(
                "the quantized student is below the quality floors",
                found="; ".join(missed),
                remedy="Try --quantization none or another --target; --allow-quality-loss writes the bundle anyway.",
            )


def compare(
    float32: StudentOutputs, quantized: StudentOutputs, gold: NDArray[np.int64], kb: KnowledgeBase, k: int
) -> QualityReport:
    """Compare both students' outputs for the same held-out rows.

    Args:
        float32: the student before quantization.
        quantized: the student that goes into the bundle.
        gold: [n], class indices.
        kb: the knowledge base that both search.
        k: number of neighbours to compare, at most the size of the knowledge base.
    """
    expected, found = (kb.search_many(outputs.queries, k)[0] for outputs in (float32, quantized))
    overlap = [len(np.intersect1d(a, b)) / max(len(a), 1) for a, b in zip(expected, found, strict=True)]
    before, after = float32.logits.argmax(axis=1), quantized.logits.argmax(axis=1)
    return QualityReport(
        rows=len(gold),
        label_agreement=float((before == after).mean()),
        accuracy_float32=float((before == gold).mean()),
        accuracy=float((after == gold).mean()),
        neighbour_overlap=float(np.mean(overlap)),
        query_cosine=float((float32.queries * quantized.queries).sum(axis=1).mean()),
        k=expected.shape[1],
    )


def answers_of(
    session: StudentSession,
    tokenizer: TextTokenizer,
    inputs: Sequence[str | tuple[str, str]],
    advance: Callable[[int], None],
) -> StudentOutputs:
    """Run a student row by row, as the runtime does, because outputs of dynamic int8 depend on the rest of a batch."""
    logits, queries = [], []
    for item in inputs:
        encoding = tokenizer.encode(*((item,) if isinstance(item, str) else item))
        logit, query = session.run(encoding)
        logits.append(logit)
        queries.append(query)
        advance(1)
    return StudentOutputs(np.stack(logits), np.stack(queries))
