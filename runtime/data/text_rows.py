"""Read texts to predict row by row, in constant memory, with an error for a row that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError, TextError
from .cells import check_text
from .columns import ChosenColumns, choose_columns
from .dataset import Columns
from .files import Parts, once, parts_to_read, require_format
from .formats import FileFormat
from .formats.decoding.opening import open_file
from .formats.decoding.source import Tell, silent
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
    tell: Tell = silent,
) -> Iterator[TextRow | BadRow]:
    r"""Read texts to predict.

    ``txt`` has one text a line, or the two texts of a pair with a tab between them. JSON has one object, string or
    (for a pair) list of two strings a row. The other formats have named columns. Empty lines are bad rows in ``txt``
    and are skipped in other formats.

    Args:
        file: a path, or a binary stream, which is read to its end and not closed. A folder holds the parts of one
            table; their rows are numbered on from part to part.
        format: the name of one of ``FORMATS``; None = by the path's suffix, and ``txt`` for a stream.
        columns: the text columns; None = detected. The label column is ignored.
        pair: whether the model reads pairs.
        tell: receives remarks on how files are read where that is not the default.

    Returns:
        An iterator of the rows in order, with a ``BadRow`` for a row that cannot be used. The first step raises
        DataError if nothing can be read (a damaged file, no header), and ColumnError if a header lacks the columns. The
        last step raises DataError for a path without rows; an empty stream of ``txt`` or ``jsonl`` has no rows.

    Raises:
        UsageError: the format is unknown.
        DataError: the file does not exist.
    """
    tell = once(tell)
    if not isinstance(file, (str, Path)):
        name = getattr(file, "name", None)
        reader = _TextReader(columns, pair, name if isinstance(name, str) else "<stream>", tell)
        return reader.read(file, require_format(None, format or "txt"))
    path = Path(file)
    parts = parts_to_read(path, tell)
    formats = [require_format(part, format) for part in parts.files]
    return _read_files(parts, formats, columns, pair, tell)


def _read_files(
    parts: Parts, formats: list[FileFormat], columns: Columns, pair: bool, tell: Tell
) -> Iterator[TextRow | BadRow]:
    before = last = 0
    for path, file_format in zip(parts.files, formats, strict=True):
        with open_file(path) as stream:
            for row in _TextReader(columns, pair, str(path), tell).read(stream, file_format):
                last = before + row.row
                yield row._replace(row=last) if before else row
        before = last
    if not last:
        raise empty_file(parts.name)


class _TextReader:
    """Reads the texts of rows."""

    def __init__(self, columns: Columns, pair: bool, source: str, tell: Tell) -> None:
        # Without the label: a file to predict does not need that column.
        self._columns = Columns(columns.text, columns.pair)
        self._encoding = columns.encoding
        self._tell = tell
        self._pair = pair
        self._source = source
        self._chosen: ChosenColumns | None = None

    def read(self, stream: BinaryIO, file_format: FileFormat) -> Iterator[TextRow | BadRow]:
        table = file_format.read_rows(stream, self._source, self._encoding, self._tell)
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
