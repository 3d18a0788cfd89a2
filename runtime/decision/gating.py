"""The gate: if the student is sure enough, it answers alone and the search is skipped.

    retrieve where max_c softmax(logits / student_temperature)_c < threshold

The export certifies the threshold on held-out rows (`export.tuning.gating`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader


@dataclass(frozen=True)
class Gate:
    """A certified threshold.

    Attributes:
        threshold: the student answers alone if its largest probability is at least this. 0: always.
        epsilon: the largest loss of accuracy compared with always retrieving.
        delta: the probability that the loss is larger than ``epsilon``.
        rows: independent held-out rows of the certificate.
        losses: the rows among them that only retrieval answers right and the gate leaves to the student.
        retrieved: the share of held-out rows with retrieval.

    Raises:
        UsageError: a value is outside its range.
    """

    threshold: float
    epsilon: float
    delta: float
    rows: int
    losses: int
    retrieved: float

    def __post_init__(self) -> None:
        for name in ("threshold", "epsilon", "delta", "retrieved"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"the gate's {name} is unusable", found=getattr(self, name), expected="0 to 1")
        if not 0 <= self.losses <= self.rows:
            raise UsageError("the gate's losses are unusable", found=self.losses, expected=f"0 to {self.rows}")


def read_gate(manifest: JsonReader) -> Gate | None:
    """Read the gate of a manifest; None if it has none.

    Raises:
        BundleError: a field is missing or unusable.
    """
    if manifest.obj.get("gate") is None:
        return None
    section = manifest.section("gate")
    return section.make(Gate, threshold=float, epsilon=float, delta=float, rows=int, losses=int, retrieved=float)
