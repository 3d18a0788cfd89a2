"""Output formats of predictions: a table for people, JSON lines and CSV for programs; one row at a time.

To add a format, write a function or class that makes a `RowWriter`, add it to `_WRITERS`, and test it. The command line
reads its choices from there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ...errors import ReaugkdError, UsageError, one_line

if TYPE_CHECKING:  # the command line imports FORMATS, and must start without numpy
    import numpy as np
    from numpy.typing import NDArray

    from ..inference.prediction import Prediction
    from ..inference.text.inputs import Text

_TEXT_WIDTH = 60
_LABEL_WIDTH = 32
_NEIGHBOURS = 10


class Output(Protocol):
    """Anything that can write text."""

    def write(self, text: str, /) -> object:
        """Write some text."""
        ...


RowWriter = Callable[[int, "Text | None", "Prediction | ReaugkdError"], None]
"""(row number, its text, its answer or error) -> None."""


def row_writer(kind: str, out: Output, explain: bool, labels: Sequence[str] = (), abstains: bool = False) -> RowWriter:
    """A function that writes one row at a time.

    Args:
        kind: one of `FORMATS`.
        out: the output.
        explain: add the neighbours.
        labels: all labels, for the width of a table's column.
        abstains: whether abstention was requested.

    Raises:
        UsageError: there is no such format.
    """
    if kind not in _WRITERS:
        raise UsageError("the output format is unknown", found=repr(kind), expected=f"one of {', '.join(FORMATS)}")
    return _WRITERS[kind](out, explain, labels, abstains)


def _jsonl(out: Output, explain: bool, _labels: Sequence[str], _abstains: bool) -> RowWriter:
    """One JSON object per row: ``row`` and the keys of `Prediction.as_record`, or ``row`` and ``error``."""

    def write(row: int, _text: Text | None, answer: Prediction | ReaugkdError) -> None:
        if isinstance(answer, ReaugkdError):
            record = {"row": row, "error": answer.as_record()}
        else:
            record = {"row": row, **answer.as_record(explain)}
        out.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    return write


def _csv(out: Output, explain: bool, _labels: Sequence[str], abstains: bool) -> RowWriter:
    """CSV with the columns row, label, probability, retrieved, error and truncated.

    With abstention there is a column ``abstained``: the signal with the largest part of the score, or nothing if the
    text is answered. With ``explain`` there is a column ``neighbours``, as JSON.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["row", "label", "probability", "retrieved", "error", "truncated"]
        + ["abstained"] * abstains
        + ["neighbours"] * explain
    )

    def write(row: int, _text: Text | None, answer: Prediction | ReaugkdError) -> None:
        if isinstance(answer, ReaugkdError):
            writer.writerow([row, "", "", "", one_line(str(answer)), ""] + [""] * (abstains + explain))
            return
        retrieved, truncated = str(answer.retrieved).lower(), str(answer.truncated).lower()
        cells: list[object] = [row, answer.label, f"{answer.probability:.6f}", retrieved, "", truncated]
        if abstains:
            cells.append(answer.abstention or "")
        if explain:
            records = [neighbour.as_record() for neighbour in answer.neighbours]
            cells.append(json.dumps(records, ensure_ascii=False))
        writer.writerow(cells)

    return write


class _Table:
    """Aligned text under a header, which is written before the first row.

    With ``explain``, the answers of the student alone and of the neighbours alone, the part that decided, and the first
    ten neighbours follow each row. With abstention there is a column ``abstained``: the signal with the largest part of the score.
    """

    def __init__(self, out: Output, explain: bool, labels: Sequence[str], abstains: bool) -> None:
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
                self._line("", "", "", f"= decided by: {answer.decided_by}")
            for near in answer.neighbours[:_NEIGHBOURS]:
                known = "(the bundle stores no texts)" if near.text is None else _shown(near.text)
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


_WRITERS: dict[str, Callable[[Output, bool, Sequence[str], bool], RowWriter]] = {
    "table": _Table,
    "jsonl": _jsonl,
    "csv": _csv,
}
FORMATS = tuple(_WRITERS)
