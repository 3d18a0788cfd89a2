"""The gate: a student that is sure enough answers alone, and the search is saved.

    retrieve where max_c softmax(logits / student_temperature)_c < threshold

The threshold comes from the export, which certifies it on held-out rows (`export.gate`); the edge compares one number.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader


@dataclass(frozen=True)
class Gate:
    """A threshold and what is known of it.

    Attributes:
        threshold: a student at least so sure (its largest probability, 0 to 1) answers alone. 0: always alone.
        epsilon: the accuracy lost against always retrieving is at most this share, ...
        delta: ... but for this chance that the held-out rows were misleading.
        rows: independent held-out rows it was certified on.
        losses: of them, those that only retrieval answers right and the gate leaves to the student.
        retrieved: share of the held-out rows for which it retrieves.

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
    """The gate of a manifest; None where there is none.

    Raises:
        BundleError: a field is missing or unusable.
    """
    if manifest.obj.get("gate") is None:
        return None
    section = manifest.section("gate")
    return section.make(Gate, threshold=float, epsilon=float, delta=float, rows=int, losses=int, retrieved=float)
