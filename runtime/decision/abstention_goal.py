"""The goal of abstention: a share of texts to answer, an error rate, or a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import UsageError

_KINDS = ("coverage", "error", "threshold")
_REMEDY = "Write coverage=95%, error=2% or threshold=6.5."


@dataclass(frozen=True)
class Abstain:
    """A goal of abstention: exactly one of three.

    Attributes:
        coverage: answer this share (above 0, at most 1) of texts like the held-out rows, and abstain from the texts
            with the highest rejection scores. The goal to choose against out-of-scope texts.
        error: at most this share (above 0, below 1) of the answers is wrong, certified on the held-out rows. It makes
            no claim about out-of-scope texts.
        threshold: abstain if `Prediction.rejection_score` is above this number, from 0.

    Raises:
        UsageError: no goal or several goals, or a number out of range.

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
                "abstention takes exactly one goal",
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
                f"the {given[0]} of abstention is unusable",
                found=value,
                expected=f"a number, {expected[given[0]]}",
                remedy=_REMEDY,
            )

    @classmethod
    def parse(cls, text: str) -> Abstain:
        """Read a goal such as ``coverage=95%``, ``error:0.02`` or ``threshold=6.5``.

        Raises:
            UsageError: the text is not a goal.
        """
        expected = "coverage=, error= or threshold= and a number"
        if not isinstance(text, str):
            raise UsageError("this is not an abstention goal", found=repr(text), expected=expected, remedy=_REMEDY)
        name, _, number = text.replace(":", "=", 1).partition("=")
        name, number = name.strip(), number.strip()
        share = number.endswith("%") and name != "threshold"
        try:
            value = float(number.removesuffix("%") if share else number)
        except ValueError:
            value = math.nan
        if name not in _KINDS or math.isnan(value):
            raise UsageError("this is not an abstention goal", found=text, expected=expected, remedy=_REMEDY)
        return cls(**{name: value / 100 if share else value})


def checked_abstain(abstain: object) -> Abstain:
    """The goal itself, or the goal that a text names.

    Raises:
        UsageError: it is neither an `Abstain` nor the text of one.
    """
    if isinstance(abstain, Abstain):
        return abstain
    if isinstance(abstain, str):
        return Abstain.parse(abstain)
    expected = "an Abstain, or its text"
    raise UsageError("this is not an abstention goal", found=repr(abstain), expected=expected, remedy=_REMEDY)
