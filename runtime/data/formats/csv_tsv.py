"""Read CSV with quoting (RFC 4180), and TSV without quoting (as in GLUE)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO

from ....errors import DataError
from .lines import MAX_LINE_BYTES, Line, read_lines
from .rows import BadRow, RawRow, Table, empty_file

# A quoted cell may span lines. If it exceeds this many characters, its opening quote counts as a stray one.
MAX_RECORD_CHARS = 4 * 1024 * 1024
# Each stray quote halves the limit for the next cell, down to this minimum; each good row raises it by its length.
# Otherwise a file with a stray quote on every line would be read once for every line.
_MIN_RECORD_CHARS = 4096

# CoLA's files in GLUE have no header line.
_COLA_HEADER = ("source", "label", "mark", "sentence")


def read_tsv(stream: BinaryIO, source: str) -> Table:
    r"""Read tab-separated rows without quoting. Rows end at ``\n``, or at ``\r\n`` if the first line does.

    The first line is the header, except in CoLA's files, which have none.

    Raises:
        DataError: the stream is empty, or its first line cannot be read.
    """  # noqa: DOC501
    lines = read_lines(stream, source)
    first = next(lines, None)
    if first is None:
        raise empty_file(source)
    if first.error is not None:
        raise first.error
    ending = "\r" if first.text.endswith("\r") else ""
    cells = tuple(first.text.removesuffix(ending).split("\t"))
    if _is_cola_row(cells):
        return Table(source, _COLA_HEADER, _tsv_rows(chain([first], lines), _COLA_HEADER, ending, source))
    return Table(source, cells, _tsv_rows(lines, cells, ending, source))


def _is_cola_row(cells: tuple[str, ...]) -> bool:
    """Whether these are a row of CoLA: source, label 0 or 1, the linguists' mark (``*`` or nothing), sentence."""
    return len(cells) == 4 and cells[1] in ("0", "1") and cells[2] in ("", "*")


def _tsv_rows(lines: Iterator[Line], header: tuple[str, ...], ending: str, source: str) -> Iterator[RawRow | BadRow]:
    width = len(header)
    for number, text, error in lines:
        text = text.removesuffix(ending)
        if error is not None:
            yield BadRow(number, error)
        elif text or width == 1:
            cells = text.split("\t")
            if len(cells) == width:
                yield RawRow(number, dict(zip(header, cells, strict=True)))
            else:
                yield BadRow(
                    number,
                    _ragged(source, number, len(cells), width, "TSV has no quoting: a tab always ends a cell."),
                )


def read_csv(stream: BinaryIO, source: str) -> Table:
    """Read comma-separated rows with a header, quoted as in RFC 4180; a quoted cell may hold line breaks.

    Rows are numbered as in a spreadsheet: the header is row 1, and a row that spans several lines is one row. A quote
    that is never closed makes its own line a bad row; reading continues with the next line.

    Raises:
        DataError: the stream is empty, or its header cannot be read.
    """  # noqa: DOC501
    records = _CsvRecords(stream, source)
    header = next(records, None)
    if header is None:
        raise empty_file(source)
    if isinstance(header, BadRow):
        raise header.error
    names = header[1]
    return Table(source, tuple(names), _csv_rows(records, names, source))


def _csv_rows(records: _CsvRecords, header: list[str], source: str) -> Iterator[RawRow | BadRow]:
    width = len(header)
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        number, cells, line = record
        if len(cells) == width:
            yield RawRow(number, dict(zip(header, cells, strict=True)))
        elif cells:
            where = "" if line == number else f" (line {line})"
            hint = f"Quote every cell that holds a comma or a line break{where}."
            yield BadRow(number, _ragged(source, number, len(cells), width, hint))


class _CsvRecords(Iterator["tuple[int, list[str], int] | BadRow"]):
    """Iterates over the records of a CSV stream as (row, cells, first line).

    It feeds ``csv.reader`` line by line and keeps the lines of the current record, to read them again after an error.
    """

    def __init__(self, stream: BinaryIO, source: str) -> None:
        # The csv module has one limit for all readers of the process, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES + MAX_RECORD_CHARS))
        self._source = source
        self._lines = read_lines(stream, source)
        self._waiting: list[Line] = []
        self._taken: list[Line] = []
        self._taken_chars = 0
        self._number = 0
        self._limit = MAX_RECORD_CHARS
        self._reader = csv.reader(_Feed(self._take_line), strict=True)

    def _take_line(self) -> str | None:
        """Return the reader's next line; None, at the end of the stream or at the limit, ends the record."""
        if self._taken_chars > self._limit:
            return None
        line = self._waiting.pop() if self._waiting else next(self._lines, None)
        if line is None:
            return None
        self._taken.append(line)
        self._taken_chars += len(line.text) + 1
        return line.text + "\n"

    def __next__(self) -> tuple[int, list[str], int] | BadRow:
        self._taken.clear()
        self._taken_chars = 0
        try:
            cells = next(self._reader)
        except csv.Error as error:
            return self._bad_record(str(error))
        self._number += 1
        self._limit = min(self._limit + self._taken_chars, MAX_RECORD_CHARS)
        for line in self._taken:
            if line.error is not None:
                found = f"{line.error.found} (line {line.number})"
                return BadRow(self._number, line.error.at(row=self._number, found=found))
        return self._number, cells, self._taken[0].number

    def _bad_record(self, reason: str) -> BadRow:
        self._number += 1
        first, *rest = self._taken
        # The lines after the one with the stray quote are read again, as rows.
        self._waiting.extend(reversed(rest))
        if rest:
            self._limit = max(self._limit // 2, _MIN_RECORD_CHARS)
        stray = rest or "unexpected end of data" in reason
        message = f"malformed CSV ({'a quote that never closes' if stray else reason})"
        beginning = first.text[:40].encode("utf-8", "replace").decode()
        error = DataError(
            message,
            path=self._source,
            row=self._number,
            found=f"{beginning!r} (line {first.number})",
            expected='quotes around whole cells, and every quote inside a cell doubled ("")',
            remedy="Correct the quotes, or write the rows as JSON lines.",
        )
        return BadRow(self._number, error)


class _Feed(Iterator[str]):
    """An iterator that can continue after StopIteration: every record of ``csv.reader`` asks for lines again."""

    def __init__(self, take: Callable[[], str | None]) -> None:
        self._take = take

    def __next__(self) -> str:
        line = self._take()
        if line is None:
            raise StopIteration
        return line


def _ragged(source: str, row: int, found: int, expected: int, remedy: str) -> DataError:
    return DataError(
        "the row does not have as many cells as the header",
        path=source,
        row=row,
        found=f"{found} cells",
        expected=f"{expected} cells",
        remedy=remedy,
    )
