"""Prediction sets: all labels likely enough that the right one is among them as often as was asked for.

    C(x) = { c : p_c >= least }

(LAC, the least ambiguous sets: Sadinle, Lei and Wasserman, 2019.) By split conformal prediction ``least`` is 1 - q for
q the ceil((n + 1) coverage)-th smallest of 1 - p_gold among n held-out rows: then, whatever the model, a text
exchangeable with them has its label in C(x) with at least that probability. The export has the thresholds from MAPIE;
here they are applied. A set may be empty: where the model is right more often than was asked for, nothing else is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader

COVERAGES = (0.8, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class PredictionSets:
    """Thresholds of prediction sets.

    Attributes:
        coverages: shares of texts, ascending, each in (0, 1).
        least: of each, the probability from which a label is in the set.

    Raises:
        UsageError: numbers out of range, or not one for each.
    """

    coverages: tuple[float, ...]
    least: tuple[float, ...]

    def __post_init__(self) -> None:
        shares = all(0.0 < share < 1.0 for share in self.coverages) and all(0.0 <= least <= 1.0 for least in self.least)
        if not shares or len(self.coverages) != len(self.least):
            raise UsageError("the prediction sets are unusable", found=self.least, expected="probabilities, 0 to 1")

    def of(self, coverage: float) -> float:
        """The least probability of a label in a set of this coverage.

        Raises:
            UsageError: the export has fitted none.
        """
        for share, least in zip(self.coverages, self.least, strict=True):
            if share == coverage:
                return least
        raise UsageError(
            "the bundle has no prediction sets of this coverage",
            found=coverage,
            expected=", ".join(map(str, self.coverages)) or "more held-out rows than it was exported with",
        )


def read_sets(section: JsonReader) -> PredictionSets:
    """The thresholds of a manifest.

    Raises:
        BundleError: a field is missing or unusable.
    """
    values = {name: tuple(section.items(name, float)) for name in ("coverages", "least")}
    return section.make(PredictionSets, values)
