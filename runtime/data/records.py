"""Texts to predict, one record at a time: lazy, in constant memory, with a bad row's error in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError, TextError, UsageError
from .cells import check_text
from .columns import Chosen, choose_columns
from .dataset import Columns
from .formats.csv_tsv import empty_source
from .formats.lines import read_lines
from .load import READERS, unreadable
from .rows import BadRow, Table

FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet")


class Record(NamedTuple):
    """A row to predict: its 1-based number in the source (a header counted) and its text, or two for a pair."""

    row: int
    text: str | tuple[str, str]


class BadRecord(NamedTuple):
    """A row that cannot be used, in its place: its 1-based number in the source and why."""

    row: int
    error: DataError


def read_records(
    file: str | Path | BinaryIO,
    format: str | None = None,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    pair: bool = False,
) -> Iterator[Record | BadRecord]:
    r"""Read texts to predict.

    ``txt`` is one text a line (of a pair, its two texts set apart by a tab), ``jsonl`` one object, string or (of a
    pair) list of two strings a line; ``csv``, ``tsv`` and ``parquet`` have named columns. Lines end at ``\n``; a ``\r``
    before it is dropped. Empty lines are bad records in ``txt``, and passed over elsewhere.

    Args:
        file: a path, or a binary stream that is read to its end, not closed.
        format: one of ``FORMATS``; None = told by the path's suffix, ``txt`` for a stream.
        columns: the text columns; None = found by themselves. A label column is not looked at.
        pair: whether the model reads pairs.

    Returns:
        An iterator of the rows in order. A row that cannot be used is a ``BadRecord``, and the next rows follow. It
        raises, at the first step, a DataError where nothing can be read at all (UTF-16, no header), a ColumnError
        where a header lacks the columns, and at the end a DataError for a file without a single row; an empty stream
        of ``txt`` or ``jsonl`` is just empty.

    Raises:
        UsageError: an unknown format.
        DataError: no such file.
    """
    if not isinstance(file, (str, Path)):
        kind = format_of(None, format or "txt")
        name = getattr(file, "name", None)
        return _Selector(columns, pair, name if isinstance(name, str) else "<stream>").records(file, kind)
    path = Path(file)
    kind = format_of(path, format)
    if not path.exists():
        raise DataError("no such file", path=path, expected="a file of texts", remedy="Check the path.")
    return _read_path(path, kind, columns, pair)


def _read_path(path: Path, kind: str, columns: Columns, pair: bool) -> Iterator[Record | BadRecord]:
    source = str(path)
    empty = True
    try:
        with path.open("rb") as stream:
            for record in _Selector(columns, pair, source).records(stream, kind):
                empty = False
                yield record
    except OSError as error:
        raise unreadable(path, error) from error
    if empty:
        raise empty_source(source)


def format_of(path: Path | None, given: str | None) -> str:
    """One of ``FORMATS``: the given one, or by the path's suffix.

    Raises:
        UsageError: it is none.
    """
    suffix = path.suffix.lower().removeprefix(".") if path is not None else ""
    kind = given or {"ndjson": "jsonl", "text": "txt"}.get(suffix, suffix)
    if kind not in FORMATS:
        raise UsageError(
            "unknown input format",
            path=path,
            found=repr(kind) if kind else "no suffix",
            expected=f"one of {', '.join(FORMATS)}",
            remedy="Say it with --input-format.",
        )
    return kind


class _Selector:
    """Takes the texts out of rows."""

    def __init__(self, columns: Columns, pair: bool, source: str) -> None:
        # The label's name takes no part: a file to predict need not have it.
        self._columns = Columns(columns.text, columns.pair)
        self._pair = pair
        self._source = source
        self._chosen: Chosen | None = None

    def records(self, stream: BinaryIO, kind: str) -> Iterator[Record | BadRecord]:
        if kind == "txt":
            yield from self._lines(stream)
            return
        table: Table = READERS[f".{kind}"](stream, self._source)
        if table.header is not None:
            self._chosen = self._choose(table.header)
        for row in table.rows:
            if isinstance(row, BadRow):
                yield BadRecord(row.number, row.error)
            else:
                yield self._record(row.number, row.value)

    def _lines(self, stream: BinaryIO) -> Iterator[Record | BadRecord]:
        for number, text, error in read_lines(stream, self._source):
            if error is not None:
                yield BadRecord(number, error)
                continue
            text = text.removesuffix("\r")
            yield self._record(number, text.split("\t") if self._pair else text)

    def _record(self, row: int, value: object) -> Record | BadRecord:
        try:
            return Record(row, self._text(row, value))
        except DataError as error:
            return BadRecord(row, error)

    def _text(self, row: int, value: object) -> str | tuple[str, str]:
        if isinstance(value, dict):
            chosen = self._chosen or self._choose_by_row(row, value)
            text = check_text(value.get(chosen.text), self._source, row, chosen.text)
            if chosen.pair is None:
                return text
            return text, check_text(value.get(chosen.pair), self._source, row, chosen.pair)
        if self._pair and isinstance(value, list) and len(value) == 2:
            return check_text(value[0], self._source, row), check_text(value[1], self._source, row)
        if not self._pair and not isinstance(value, list):
            return check_text(value, self._source, row)
        raise TextError(
            f"this model reads {'pairs of texts' if self._pair else 'single texts'}",
            path=self._source,
            row=row,
            found=f"{len(value)} texts" if isinstance(value, list) else repr(value),
            expected="two texts" if self._pair else "one text",
        )

    def _choose(self, header: tuple[str, ...]) -> Chosen:
        return choose_columns(header, self._columns, self._source, pair=self._pair)

    def _choose_by_row(self, row: int, value: dict[str, object]) -> Chosen:
        """Of JSON lines, the first object in which the columns can be told decides for all that follow."""
        try:
            self._chosen = self._choose(tuple(value))
        except DataError as error:
            raise error.at(row=row) from error
        return self._chosen
