"""What a caller asks of abstention: a share of texts to be answered, a rate of errors, or a threshold of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import UsageError

_KINDS = ("coverage", "error", "threshold")
_REMEDY = "Write coverage=95%, error=2% or threshold=6.5."


@dataclass(frozen=True)
class Abstain:
    """When not to answer: exactly one of these.

    Attributes:
        coverage: abstain from the most doubtful texts, so that this share (above 0, at most 1) of texts like the
            held-out ones is answered. The goal against texts that belong to no label.
        error: abstain so that at most this share (above 0, below 1) of the answers is wrong, certified on the held-out
            rows; says nothing of texts that belong to no label.
        threshold: abstain where `Prediction.doubt` is above this, from 0.

    Raises:
        UsageError: none of them or several, or a number out of range.

    Example:
        >>> Abstain(coverage=0.95) == Abstain.parse("coverage=95%") == Abstain.parse("coverage:0.95")
        True
    """

    coverage: float | None = None
    error: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                "abstention takes one goal",
                found=" and ".join(given) or "none",
                expected="coverage, error or threshold",
                remedy=_REMEDY,
            )
        value = getattr(self, given[0])
        most = {"coverage": 1.0, "error": math.nextafter(1.0, 0.0), "threshold": math.inf}[given[0]]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (0 <= value <= most) or (value == 0 and given[0] != "threshold"):
            expected = {
                "coverage": "more than 0, at most 1",
                "error": "more than 0, less than 1",
                "threshold": "from 0",
            }
            raise UsageError(
                f"the {given[0]} to abstain by is unusable",
                found=value,
                expected=f"a number, {expected[given[0]]}",
                remedy=_REMEDY,
            )

    @classmethod
    def parse(cls, text: str) -> Abstain:
        """The goal that a text such as ``coverage=95%``, ``error:0.02`` or ``threshold=6.5`` names.

        Raises:
            UsageError: it names none.
        """
        name, _, number = text.replace(":", "=", 1).partition("=")
        name, number = name.strip(), number.strip()
        share = number.endswith("%") and name != "threshold"
        try:
            value = float(number.removesuffix("%") if share else number)
        except ValueError:
            value = math.nan
        if name not in _KINDS or math.isnan(value):
            expected = "coverage=, error= or threshold= and a number"
            raise UsageError("this is nothing to abstain by", found=text, expected=expected, remedy=_REMEDY)
        return cls(**{name: value / 100 if share else value})


def checked_abstain(abstain: object) -> Abstain:
    """An `Abstain`, or the one that a text names.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(abstain, Abstain):
        return abstain
    if isinstance(abstain, str):
        return Abstain.parse(abstain)
    raise UsageError("this is nothing to abstain by", found=abstain, expected="an Abstain, or its text", remedy=_REMEDY)
