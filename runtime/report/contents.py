"""The contents of a report: its numbers and examples, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..benchmark.bench import BenchReport
from ..evaluation.diagnostics import ClassScores, Confusion, ReliabilityBin
from ..evaluation.results import EvalReport

Text = str | tuple[str, str] | None
"""A text, a pair, or None where the text is not shown or not kept."""


@dataclass(frozen=True)
class Curve:
    """The error rate of the answered rows at some coverages, both [m], coverages ascending to 1."""

    coverage: tuple[float, ...]
    error_rate: tuple[float, ...]


@dataclass(frozen=True)
class GoalResult:
    """What a goal of abstention gives on the rows.

    Attributes:
        goal: the goal, as ``predict --abstain`` takes it.
        coverage: share of the rows that are answered.
        error_rate: share of the answered rows that is wrong; None if none is answered.
    """

    goal: str
    coverage: float
    error_rate: float | None


@dataclass(frozen=True)
class ShownNeighbour:
    """A neighbour of a wrongly answered row.

    Attributes:
        id: its id.
        similarity: cosine to the query.
        weight: its share of the neighbours' votes.
        label: its gold label, or the teacher's label where that is unknown.
        text: its text.
    """

    id: int
    similarity: float
    weight: float
    label: str
    text: Text


@dataclass(frozen=True)
class WrongRow:
    """A row that is answered wrong.

    Attributes:
        row: its 1-based number in the source.
        text: its text.
        gold: its label in the data.
        predicted: the bundle's label.
        probability: the probability of ``predicted``.
        gold_probability: the probability of ``gold``; None for a label that the bundle does not have.
        student: the label of the student alone.
        neighbours_say: the most probable label of the neighbours alone; None without neighbours.
        neighbours: the nearest rows, most similar first.
    """

    row: int
    text: Text
    gold: str
    predicted: str
    probability: float
    gold_probability: float | None
    student: str
    neighbours_say: str | None
    neighbours: tuple[ShownNeighbour, ...]


@dataclass(frozen=True)
class WrongLabel:
    """A row of the knowledge base whose neighbours contradict its label; same as `LabelIssue`, with a shown text."""

    id: int
    text: Text
    label: str
    suggested: str
    self_confidence: float
    suggested_probability: float


@dataclass(frozen=True)
class WrongLabels:
    """Rows of the knowledge base whose label is probably wrong.

    Attributes:
        checked: rows whose label was checked.
        found: how many labels are contradicted.
        shown: the first of them, worst first.
    """

    checked: int
    found: int
    shown: tuple[WrongLabel, ...]


@dataclass(frozen=True)
class Report:
    """A report on one bundle and one split.

    Attributes:
        bundle: the bundle's path, as it was given.
        command: the command line that made the report.
        made: date and time in UTC.
        evaluation: every system's scores, same as `eval`.
        system: the system that the bundle answers with, whose classes, confusions and errors follow.
        classes: its scores by class.
        class_count: the number of classes with scores; ``classes`` may have fewer.
        confusions: its pairs of confused classes, most frequent first.
        confusion_count: how many there are; ``confusions`` may have fewer.
        reliability: system -> bins of its confidence.
        curves: what the rows are ordered by -> error rate over coverage.
        goals: results of goals of abstention; empty without thresholds.
        wrong: rows answered wrong, most probable wrong answer first.
        wrong_count: how many there are; ``wrong`` may have fewer.
        wrong_labels: rows of the knowledge base whose label is probably wrong.
        note: where the rows come from, if they are not a split of their own; else empty.
        among: how many of the rows are among others, same as `rows_among`.
        latency: same as `bench`; None if it was not measured.
        bytes: same as `bundle_bytes`.
        provenance: names and values, in the order of the page.
        recipe: the recipe of the training; empty if it is not known.
    """

    bundle: str
    command: str
    made: str
    evaluation: EvalReport
    system: str
    classes: tuple[ClassScores, ...]
    class_count: int
    confusions: tuple[Confusion, ...]
    confusion_count: int
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    curves: Mapping[str, Curve]
    goals: tuple[GoalResult, ...]
    wrong: tuple[WrongRow, ...]
    wrong_count: int
    wrong_labels: WrongLabels
    note: str
    among: Mapping[str, int]
    latency: BenchReport | None
    bytes: Mapping[str, Any]
    provenance: Mapping[str, str]
    recipe: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; ``evaluation`` and ``latency`` have the keys of `eval` and `bench`."""
        plain = {name: getattr(self, name) for name in ("bundle", "command", "made", "system", "note")}
        counts = {name: getattr(self, name) for name in ("class_count", "confusion_count", "wrong_count")}
        return {
            **plain,
            "evaluation": self.evaluation.to_json(),
            "classes": [asdict(one) for one in self.classes],
            "confusions": [asdict(one) for one in self.confusions],
            "reliability": {name: [asdict(one) for one in bins] for name, bins in self.reliability.items()},
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "goals": [asdict(one) for one in self.goals],
            "wrong": [asdict(one) for one in self.wrong],
            "wrong_labels": asdict(self.wrong_labels),
            **counts,
            "among": dict(self.among),
            "latency": None if self.latency is None else self.latency.to_json(),
            "bytes": dict(self.bytes),
            "provenance": dict(self.provenance),
            "recipe": dict(self.recipe),
        }
