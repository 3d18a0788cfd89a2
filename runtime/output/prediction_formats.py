"""Predictions as a table for people, or as JSON lines or CSV for programs, one row at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import ReaugkdError, one_line
from ..inference.inputs import Text
from ..inference.prediction import Prediction

Format = Literal["table", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = ("table", "jsonl", "csv")
_TEXT_WIDTH = 60
_LABEL_WIDTH = 32
_NEIGHBOURS = 10


class Output(Protocol):
    """Where rows go: anything that can write text."""

    def write(self, text: str, /) -> object:
        """Write some text."""
        ...


RowWriter = Callable[[int, "Text | None", "Prediction | ReaugkdError"], None]
"""(row number, its text, its answer or error) -> None."""


def row_writer(
    kind: Format, out: Output, explain: bool, labels: Sequence[str] = (), abstains: bool = False
) -> RowWriter:
    """A function that writes one row after another.

    ``jsonl``: one object a row with ``row``, ``label``, ``probability``, ``probabilities`` (label to number) and
    ``retrieved``; with ``explain`` also ``neighbours``; a row that failed has ``row`` and ``error`` in their place.
    ``csv``: columns row, label, probability, retrieved, error, and neighbours as JSON with ``explain``.
    ``table``: aligned text under a header; with ``explain`` what the student and the neighbours say each alone, and
    the first ten neighbours, below each row.
    With ``abstains``, ``jsonl`` has ``abstained``, ``doubt`` and ``abstention`` too (`Prediction.as_record`), and the
    others a column ``abstained``: the signal that weighed most where a text is abstained from, else nothing.

    Args:
        kind: one of FORMATS.
        out: where to.
        explain: add the neighbours.
        labels: all there are, for the width of a table's column.
        abstains: whether abstention was asked for.
    """
    if kind == "table":
        return _Table(out, explain, labels, abstains)
    return _jsonl(out, explain) if kind == "jsonl" else _csv(out, explain, abstains)


def _jsonl(out: Output, explain: bool) -> RowWriter:
    def write(row: int, _text: Text | None, answer: Prediction | ReaugkdError) -> None:
        if isinstance(answer, ReaugkdError):
            record = {"row": row, "error": answer.as_record()}
        else:
            record = {"row": row, **answer.as_record(explain)}
        out.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    return write


def _csv(out: Output, explain: bool, abstains: bool) -> RowWriter:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["row", "label", "probability", "retrieved", "error"] + ["abstained"] * abstains + ["neighbours"] * explain
    )

    def write(row: int, _text: Text | None, answer: Prediction | ReaugkdError) -> None:
        if isinstance(answer, ReaugkdError):
            writer.writerow([row, "", "", "", one_line(str(answer))] + [""] * (abstains + explain))
            return
        cells: list[object] = [row, answer.label, f"{answer.probability:.6f}", str(answer.retrieved).lower(), ""]
        if abstains:
            cells.append(answer.abstention or "")
        if explain:
            records = [neighbour.as_record() for neighbour in answer.neighbours]
            cells.append(json.dumps(records, ensure_ascii=False))
        writer.writerow(cells)

    return write


class _Table:
    """Aligned text, a row at a time; the header comes with the first."""

    def __init__(self, out: Output, explain: bool, labels: Sequence[str], abstains: bool = False) -> None:
        self._out, self._explain, self._abstains = out, explain, abstains
        self._width = min(max(map(len, ("label", *(labels or [" " * _LABEL_WIDTH])))), _LABEL_WIDTH)
        self._begun = False

    def __call__(self, row: int, text: Text | None, answer: Prediction | ReaugkdError) -> None:
        if not self._begun:
            self._line("row", "label", "prob.", "text", "abstained")
            if self._explain:
                self._line("", "", "weight", "cosine and text of each neighbour")
            self._begun = True
        if isinstance(answer, ReaugkdError):
            self._out.write(f"{row:>5}  error: {one_line(str(answer))}\n")
            return
        self._line(str(row), answer.label, f"{answer.probability:.1%}", _shown(text), answer.abstention or "")
        if self._explain:
            self._alone("= student alone", answer.student_probabilities, answer.labels)
            if answer.retrieval_probabilities is not None:
                self._alone("= neighbours alone", answer.retrieval_probabilities, answer.labels)
            for near in answer.neighbours[:_NEIGHBOURS]:
                known = "(the bundle keeps no texts)" if near.text is None else _shown(near.text)
                self._line("", near.label, f"{near.weight:.1%}", f"{near.similarity:.3f} {known}")
            if len(answer.neighbours) > _NEIGHBOURS:
                left = sum(near.weight for near in answer.neighbours[_NEIGHBOURS:])
                self._line("", "...", f"{left:.1%}", f"{len(answer.neighbours) - _NEIGHBOURS} more")

    def _line(self, row: str, label: str, share: str, text: str, abstention: str = "") -> None:
        why = f"{abstention:<12}  " if self._abstains else ""
        line = f"{row:>5}  {_cut(one_line(label), self._width):<{self._width}}  {share:>6}  {why}{text}"
        self._out.write(line.rstrip() + "\n")

    def _alone(self, what: str, probabilities: NDArray[np.float32], labels: Sequence[str]) -> None:
        best = int(probabilities.argmax())
        self._line("", labels[best], f"{probabilities[best]:.1%}", what)


def _shown(text: Text | None) -> str:
    joined = " | ".join(text) if isinstance(text, tuple) else text or ""
    return _cut(one_line(joined[: 4 * _TEXT_WIDTH]), _TEXT_WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
