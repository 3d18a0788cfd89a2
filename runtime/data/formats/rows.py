"""Rows as every reader returns them: parsed but unchecked, with an error for a row that cannot be parsed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ....errors import DataError, EmptyFileError


class RawRow(NamedTuple):
    """A row as parsed, before its cells are checked.

    Attributes:
        row: the 1-based row number, with the header counted where there is one.
        value: column name -> cell; any JSON value from JSON; a string from plain text.
    """

    row: int
    value: object


class BadRow(NamedTuple):
    """A row that cannot be used: its 1-based row number and the reason."""

    row: int
    error: DataError


class Table(NamedTuple):
    """The rows of a file or a split.

    Attributes:
        source: the name of the file, for messages.
        header: the column names in order, or None if each row names its own columns (JSON) or has none (plain text).
        rows: an iterator that can be consumed once.
        class_names: column name -> its classes in order, where the file names them (`datasets` does in Parquet).
    """

    source: str
    header: tuple[str, ...] | None
    rows: Iterator[RawRow | BadRow]
    class_names: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class SplitFile(NamedTuple):
    """A file that holds several splits.

    Attributes:
        splits: ``train``, ``dev`` or ``test`` -> its rows.
        with_out_of_scope: the same splits with their out-of-scope rows appended, whose label is ``oos``.
    """

    splits: Mapping[str, Table]
    with_out_of_scope: Mapping[str, Table]


def empty_file(source: str) -> EmptyFileError:
    """Return the error for a file without rows."""
    return EmptyFileError(
        "the file is empty",
        path=source,
        found="0 rows",
        expected="at least one row (of a table: below its header)",
        remedy="Provide a file with rows.",
    )
