"""Read texts to predict row by row, in constant memory, with an error for a row that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError, TextError, UsageError
from .cells import check_text
from .columns import ChosenColumns, choose_columns
from .dataset import Columns
from .formats import FORMATS, FileFormat, format_named, format_of, open_file
from .formats.rows import BadRow, empty_file


class TextRow(NamedTuple):
    """A row to predict: its 1-based number in the source (with the header counted) and its text, or two for a pair."""

    row: int
    text: str | tuple[str, str]


def read_text_rows(
    file: str | Path | BinaryIO,
    format: str | None = None,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    pair: bool = False,
) -> Iterator[TextRow | BadRow]:
    r"""Read texts to predict.

    ``txt`` has one text a line, or the two texts of a pair with a tab between them. JSON has one object, string or
    (for a pair) list of two strings a row. The other formats have named columns. Empty lines are bad rows in ``txt``
    and are skipped in other formats.

    Args:
        file: a path, or a binary stream, which is read to its end and not closed.
        format: the name of one of ``FORMATS``; None = by the path's suffix, and ``txt`` for a stream.
        columns: the text columns; None = detected. The label column is ignored.
        pair: whether the model reads pairs.

    Returns:
        An iterator of the rows in order, with a ``BadRow`` for a row that cannot be used. The first step raises
        DataError if nothing can be read (UTF-16, no header), and ColumnError if a header lacks the columns. The last
        step raises DataError for a path without rows; an empty stream of ``txt`` or ``jsonl`` has no rows.

    Raises:
        UsageError: the format is unknown.
        DataError: the file does not exist.
    """
    if not isinstance(file, (str, Path)):
        file_format = require_format(None, format or "txt")
        name = getattr(file, "name", None)
        return _TextReader(columns, pair, name if isinstance(name, str) else "<stream>").read(file, file_format)
    path = Path(file)
    file_format = require_format(path, format)
    if not path.exists():
        raise DataError("no such file", path=path, expected="a file of texts", remedy="Check the path.")
    return _read_path(path, file_format, columns, pair)


def _read_path(path: Path, file_format: FileFormat, columns: Columns, pair: bool) -> Iterator[TextRow | BadRow]:
    empty = True
    with open_file(path) as stream:
        for row in _TextReader(columns, pair, str(path)).read(stream, file_format):
            empty = False
            yield row
    if empty:
        raise empty_file(str(path))


def require_format(path: Path | None, name: str | None) -> FileFormat:
    """Return the named format, or without a name the one of the path's suffix.

    Raises:
        UsageError: the format is unknown.
    """
    suffix = "" if path is None else path.suffix.lower()
    found = format_named(name) if name else format_of(path or Path())
    if found is None:
        raise UsageError(
            "unknown input format",
            path=path,
            found=repr(name or suffix.removeprefix(".")) if name or suffix else "no suffix",
            expected=f"one of {', '.join(one.name for one in FORMATS)}",
            remedy="Name it with --input-format.",
        )
    return found


class _TextReader:
    """Reads the texts of rows."""

    def __init__(self, columns: Columns, pair: bool, source: str) -> None:
        # Without the label: a file to predict does not need that column.
        self._columns = Columns(columns.text, columns.pair)
        self._pair = pair
        self._source = source
        self._chosen: ChosenColumns | None = None

    def read(self, stream: BinaryIO, file_format: FileFormat) -> Iterator[TextRow | BadRow]:
        table = file_format.read_rows(stream, self._source)
        if table.header is not None:
            self._chosen = self._choose(table.header)
        for row in table.rows:
            if isinstance(row, BadRow):
                yield row
                continue
            value = row.value
            if self._pair and file_format.pair_separator is not None and isinstance(value, str):
                value = value.split(file_format.pair_separator)
            yield self._text_row(row.row, value)

    def _text_row(self, row: int, value: object) -> TextRow | BadRow:
        try:
            return TextRow(row, self._text(row, value))
        except DataError as error:
            return BadRow(row, error)

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

    def _choose(self, header: tuple[str, ...]) -> ChosenColumns:
        return choose_columns(header, self._columns, self._source, pair=self._pair)

    def _choose_by_row(self, row: int, value: dict[str, object]) -> ChosenColumns:
        """Choose the columns by the first JSON object that has them; they are used for all later rows."""
        try:
            self._chosen = self._choose(tuple(value))
        except DataError as error:
            raise error.at(row=row) from error
        return self._chosen
