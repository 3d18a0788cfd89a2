"""Prediction sets: all labels whose probability is above a threshold that guarantees a coverage.

    C(x) = { c : p_c >= least }

(LAC, least ambiguous sets: Sadinle, Lei and Wasserman, 2019.) By split conformal prediction, ``least`` is 1 - q, where
q is the ceil((n + 1) coverage)-th smallest 1 - p_gold of n held-out rows. Then the label of a text that is exchangeable
with these rows is in C(x) with at least the probability ``coverage``, for any model. The export computes the thresholds
with MAPIE. A set may be empty if the model is right more often than the coverage.
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
        least: for each coverage, the smallest probability of a label in the set.

    Raises:
        UsageError: numbers out of range, or not one threshold for each coverage.
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
            UsageError: the bundle has no threshold for it.
        """
        for share, least in zip(self.coverages, self.least, strict=True):
            if share == coverage:
                return least
        raise UsageError(
            "the bundle has no prediction sets for this coverage",
            found=coverage,
            expected=", ".join(map(str, self.coverages)) or "sets that are fitted on more rows",
        )


def read_sets(section: JsonReader) -> PredictionSets:
    """Read the prediction sets of a manifest.

    Raises:
        BundleError: a field is missing or unusable.
    """
    values = {name: tuple(section.items(name, float)) for name in ("coverages", "least")}
    return section.make(PredictionSets, values)
