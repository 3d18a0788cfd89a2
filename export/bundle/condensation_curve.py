"""Size/quality curve of a condensed knowledge base, on a bundle's held-out rows.

The quality of a size is the share of retrieval's gain over the student alone that it keeps, in negative log-likelihood
and in accuracy. All sizes, including the full one, are measured with an exact search over prototypes of the rows that
are not related to the held-out rows (`HeldOutRows.unrelated`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.index.exact_search import exact_search
from ...kb.soft_labels import SoftLabels
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.evaluation.metrics import row_nll
from ..tuning.build_kb import Blends, blend_found
from ..tuning.groups import mean_and_error


@dataclass(frozen=True)
class CurveInputs:
    """A system's results on n held-out rows.

    Attributes:
        labels: int64 [n], the most probable label.
        right: [n], whether that is the gold label.
        nll: float64 [n], nats.
    """

    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    nll: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: NDArray[np.float64], gold: NDArray[np.int64]) -> CurveInputs:
        """Compute the results from probabilities.

        Args:
            probabilities: [n, c].
            gold: [n], class indices.
        """
        labels = probabilities.argmax(axis=1)
        return cls(labels, labels == gold, row_nll(probabilities, gold))


@dataclass(frozen=True)
class Size:
    """A size and its quality.

    Attributes:
        rows: number of prototypes.
        bytes: bytes of the whole knowledge base: index, soft labels, row table, texts.
        accuracy: on the held-out rows, 0 to 1.
        nll: mean negative log-likelihood, nats.
        kept_accuracy: kept share of retrieval's gain in accuracy; None if the full knowledge base has no gain.
        kept_nll: kept share of its gain in log-likelihood; None if it has no gain.
        kept_nll_error: standard error of ``kept_nll``, for a fixed gain.
        agreement: share of the held-out rows with the same label as with the full knowledge base.
    """

    rows: int
    bytes: int
    accuracy: float
    nll: float
    kept_accuracy: float | None
    kept_nll: float | None
    kept_nll_error: float | None
    agreement: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Reference:
    """The two systems that sizes are compared with.

    Attributes:
        student: the student alone.
        full: the blend with the full knowledge base.
        groups: [n], group numbers: related rows, whose errors are correlated, have the same number.
    """

    student: CurveInputs
    full: CurveInputs
    groups: NDArray[np.int64]

    @property
    def gain(self) -> float:
        """Gain of the full knowledge base over the student, in mean log-likelihood."""
        return float((self.student.nll - self.full.nll).mean())

    @property
    def more_right(self) -> int:
        """Number of correct labels with the full knowledge base minus that of the student."""
        return int(self.full.right.sum()) - int(self.student.right.sum())

    def size(self, rows: int, size_bytes: int, answered: CurveInputs) -> Size:
        """Compute the quality of a size.

        Args:
            rows: number of prototypes.
            size_bytes: bytes of the knowledge base.
            answered: its results.
        """
        lost = answered.nll - self.full.nll
        right = int(answered.right.sum()) - int(self.student.right.sum())
        return Size(
            rows,
            size_bytes,
            float(answered.right.mean()),
            float(answered.nll.mean()),
            right / self.more_right if self.more_right > 0 else None,
            1 - float(lost.mean()) / self.gain if self.gain > 0 else None,
            mean_and_error(lost, self.groups)[1] / self.gain if self.gain > 0 else None,
            float((answered.labels == self.full.labels).mean()),
        )

    def smallest_within(self, loss: float, sizes: Sequence[CurveInputs]) -> int:
        """Find the smallest size that, like all larger sizes, loses at most a share of the gain.

        Its log-likelihood may lose that share. Its accuracy may lose the same share plus a standard error, because it
        depends on few rows (one-standard-error rule, Breiman et al. 1984).

        Args:
            loss: the share, 0 to 1.
            sizes: the results at each size, the largest first.

        Returns:
            The index of the size.

        Raises:
            UsageError: the full knowledge base has no gain.
        """
        if self.gain <= 0:
            raise UsageError(
                "retrieval has no gain on the held-out rows, so --max-loss cannot be used",
                found=f"negative log-likelihood {self.student.nll.mean():.4f} -> {self.full.nll.mean():.4f}",
                remedy="Give --max-rows or --max-bytes.",
            )
        too_small = (number for number, answered in enumerate(sizes) if not self._keeps(loss, answered))
        return max(next(too_small, len(sizes)) - 1, 0)

    def _keeps(self, loss: float, answered: CurveInputs) -> bool:
        fewer_right = int(self.full.right.sum()) - int(answered.right.sum())
        net = np.bincount(self.groups, weights=self.full.right.astype(float) - answered.right)
        enough_right = fewer_right <= loss * max(self.more_right, 0) + float(np.linalg.norm(net))
        return enough_right and float((answered.nll - self.full.nll).mean()) <= loss * self.gain


def blends_of(keys: NDArray[np.float32], labels: SoftLabels, blend: BlendConfig, heldout: HeldOutRows) -> Blends:
    """Compute the probabilities of student, neighbours and blend for the held-out rows, by an exact search.

    Args:
        keys: [n, d], L2-normalised.
        labels: the soft labels of at least n rows.
        blend: the bundle's blend.
        heldout: the held-out rows.
    """
    found, similarities = exact_search(keys, heldout.queries, blend.k)
    return blend_found(found, similarities, labels, blend, heldout.logits)
