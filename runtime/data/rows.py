"""What every reader yields: rows, with the errors of bad ones in their places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import DataError


class RawRow(NamedTuple):
    """One row of a source.

    Attributes:
        number: 1-based, the header counted where there is one.
        value: column name -> cell; from JSON lines any JSON value.
    """

    number: int
    value: object


class BadRow(NamedTuple):
    """A row that cannot be read, in its place."""

    number: int
    error: DataError


class Table(NamedTuple):
    """A source of rows.

    Attributes:
        header: the column names in order, or None where each row brings its own (JSON lines).
        rows: lazy, read once.
    """

    header: tuple[str, ...] | None
    rows: Iterator[RawRow | BadRow]
