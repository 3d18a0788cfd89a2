"""The settings of the blend, as the manifest keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader
from .mixture_weight import ExampleWeight, read_weight


@dataclass(frozen=True)
class BlendConfig:
    """How student and neighbours are mixed (`blend.blend`).

    Attributes:
        k: neighbours looked up.
        tau: temperature of the softmax over their cosine similarities.
        student_weight: the student's share w of the mixture, 0 to 1.
        student_temperature: the student's logits are divided by it.
        label_temperature: the teacher's logits were divided by it when the soft labels were made; kept as a record.
        gold_share: the gold labels' part in the soft labels of the rows that have one; kept as a record.
        weight: the student's share as a function of the text, in place of ``student_weight``; None for a constant one.

    Raises:
        UsageError: a value is outside its range.
    """

    k: int
    tau: float
    student_weight: float
    student_temperature: float = 1.0
    label_temperature: float = 1.0
    gold_share: float = 0.0
    weight: ExampleWeight | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError("the blend's k is unusable", found=self.k, expected="a whole number from 1")
        if not 0.0 <= self.student_weight <= 1.0:
            raise UsageError("the blend's student_weight is unusable", found=self.student_weight, expected="0 to 1")
        if not 0.0 <= self.gold_share <= 1.0:
            raise UsageError("the blend's gold_share is unusable", found=self.gold_share, expected="0 to 1")
        for name in ("tau", "student_temperature", "label_temperature"):
            if not 1e-6 <= getattr(self, name) <= 1e6:  # beyond, float32 ends
                raise UsageError(f"the blend's {name} is unusable", found=getattr(self, name), expected="1e-6 to 1e6")


def read_blend(section: JsonReader) -> BlendConfig:
    """A blend from the JSON values of one.

    Raises:
        BundleError: a field is missing or unusable.
    """
    return section.make(BlendConfig, {"weight": read_weight(section)}, k=int, tau=float, student_weight=float)
