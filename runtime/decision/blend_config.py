"""The settings of the blend, as stored in the manifest."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader
from .mixture_weight import ExampleWeight, read_weight


@dataclass(frozen=True)
class BlendConfig:
    """Settings of the blend of student and neighbours (`blending.blend`).

    Attributes:
        k: the number of neighbours.
        tau: temperature of the softmax over the neighbours' cosine similarities.
        student_weight: the mixture weight w of the student, 0 to 1.
        student_temperature: temperature of the student's logits.
        label_temperature: temperature of the teacher's logits in the soft labels; informative only.
        gold_share: the share of the gold label in the soft labels of labelled rows; informative only.
        weight: the mixture weight as a function of the text, which replaces ``student_weight``; None for a constant.

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
            if not 1e-6 <= getattr(self, name) <= 1e6:  # float32 overflows beyond
                raise UsageError(f"the blend's {name} is unusable", found=getattr(self, name), expected="1e-6 to 1e6")


def read_blend(section: JsonReader) -> BlendConfig:
    """Read the blend section of a manifest.

    Raises:
        BundleError: a field is missing or unusable.
    """
    return section.make(BlendConfig, {"weight": read_weight(section)}, k=int, tau=float, student_weight=float)
