"""The columns of answers, and the cells of Arrow columns as Python objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import ColumnError, ReaugkdError, UsageError, one_line
from ..runtime.data.cells import is_unicode
from ..runtime.inference.prediction import Prediction, checked_top_k

_FIELDS = (
    ("label", pa.string()),
    ("score", pa.float64()),  # holds every value of `Prediction.probability` exactly
    ("retrieved", pa.bool_()),
    ("abstained", pa.bool_()),
    ("error", pa.string()),
)
_RANKED = (("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float64())))


@dataclass(frozen=True)
class AnswerColumns:
    """The columns that are added to each row.

    Attributes:
        prefix: the beginning of their names.
        top_k: also add ``labels`` and ``scores``, the most probable labels of each row, so many; None for neither.

    Raises:
        UsageError: the prefix is no string of Unicode, or ``top_k`` is not a whole number from 1.
    """

    prefix: str = ""
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str) or not is_unicode(self.prefix):
            raise UsageError("the prefix of the new columns is unusable", found=repr(self.prefix), expected="a string")
        if self.top_k is not None:
            checked_top_k(self.top_k)

    @property
    def fields(self) -> list[tuple[str, Any]]:
        """The name and the Arrow type of each column."""
        found = _FIELDS if self.top_k is None else (*_FIELDS, *_RANKED)
        return [(self.prefix + name, kind) for name, kind in found]

    def require_free(self, names: Iterable[object]) -> None:
        """Check that none of the names is that of an added column.

        Raises:
            ColumnError: one is.
        """
        kept = set(names)
        for name, _ in self.fields:
            if name in kept:
                raise ColumnError(
                    "the input has a column with the name of an added one",
                    column=name,
                    expected="another name",
                    remedy='Put a prefix before the added ones, such as prefix="predicted_" (--prefix predicted_), or '
                    "drop the column.",
                )

    def arrays(self, answers: Iterable[Prediction | ReaugkdError]) -> list[Any]:
        """The columns of some rows, as Arrow arrays; a row with an error has only the error."""
        # One answer at a time: with its arrays, it is a hundred times as large as its row.
        columns = list(zip(*map(self._values, answers), strict=True)) or [()] * len(self.fields)
        return [pa.array(column, kind) for column, (_, kind) in zip(columns, self.fields, strict=True)]

    def _values(self, answer: Prediction | ReaugkdError) -> tuple[object, ...]:
        ranked = self.top_k is not None
        if isinstance(answer, ReaugkdError):
            # The name of a file can have bytes that are not UTF-8.
            error = one_line(str(answer)).encode("utf-8", "backslashreplace").decode()
            return (None, None, None, None, error, *((None, None) if ranked else ()))
        row = (answer.label, answer.probability, answer.retrieved, answer.abstained, None)
        if self.top_k is None:
            return row
        top = answer.top(self.top_k)
        return (*row, [label for label, _ in top], [score for _, score in top])


def cells_of(column: Any) -> list[object]:
    """The cells of an Arrow column; a string that is not UTF-8 is bytes, and bytes that are UTF-8 are a string."""
    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        cells = [_cell(scalar) for scalar in column]
    return [as_text(cell) for cell in cells]


def _cell(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes()


def as_text(cell: object) -> object:
    """Bytes as the string that they are in UTF-8, if they are one; another cell unchanged."""
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError:
            return cell
    return cell
