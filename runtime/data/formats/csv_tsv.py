"""CSV with quoting, and TSV without any (GLUE's way)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO

from ....errors import DataError
from ..known_tasks import told_header
from ..rows import BadRow, RawRow, Table
from .lines import MAX_LINE_BYTES, Line, read_lines

# A quoted cell may span lines; beyond this many characters the opening quote is taken for a stray one.
MAX_RECORD_CHARS = 4 * 1024 * 1024
# After a stray quote the next one's end is looked for half as far, down to this, and further again by what is read in
# between: or a file of such lines would be read once for each of them.
_MIN_RECORD_CHARS = 4096


def read_tsv(stream: BinaryIO, source: str) -> Table:
    r"""Tab-separated rows: no quoting, a row ends at ``\n`` alone (or at ``\r\n`` where the first line does).

    CoLA's files, which have no header line, get theirs; any other file must begin with one.

    Raises:
        DataError: there is nothing in the stream, or its first line cannot be read.
    """
    lines = read_lines(stream, source)
    first = next(lines, None)
    if first is None:
        raise empty_source(source)
    if first.error is not None:
        raise first.error
    ending = "\r" if first.text.endswith("\r") else ""
    cells = tuple(first.text.removesuffix(ending).split("\t"))
    header = told_header(cells)
    if header is None:
        return Table(cells, _tsv_rows(lines, cells, ending, source))
    return Table(header, _tsv_rows(chain([first], lines), header, ending, source))


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
                    _ragged(source, number, len(cells), width, "Nothing is quoted in TSV: a tab always ends a cell."),
                )


def read_csv(stream: BinaryIO, source: str) -> Table:
    """Comma-separated rows with a header, quoted as RFC 4180 says; a quoted cell may hold line breaks.

    Rows are counted as a spreadsheet counts them: the header is row 1, and a row over several lines is one row. A
    quote that never closes costs its own line only: reading goes on with the next one.

    Raises:
        DataError: there is nothing in the stream, or its header cannot be read.
    """
    records = _CsvRecords(stream, source)
    header = next(records, None)
    if header is None:
        raise empty_source(source)
    if isinstance(header, BadRow):
        raise header.error
    names = header[1]
    return Table(tuple(names), _csv_rows(records, names, source))


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
    """Records of a CSV stream as (row, cells, first line); feeds ``csv.reader`` line by line and sees what it takes."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        # The limit is the module's only one and counts for every reader in the process; it is never lowered.
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
        """The next line for the reader; None ends the record, at the end of the stream or at the limit."""
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
        # What follows a stray quote, up to the end or to the next quote, are rows of their own.
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
            expected='cells quoted whole, with every quote inside doubled ("")',
            remedy="Correct the quotes, or bring the rows as JSON lines.",
        )
        return BadRow(self._number, error)


class _Feed(Iterator[str]):
    """An iterator that may go on after it has ended, as the reader's next record asks again."""

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


def empty_source(source: str) -> DataError:
    """The error for a source without a single row."""
    return DataError(
        "the file is empty",
        path=source,
        found="0 rows",
        expected="a header and at least one row",
        remedy="Bring a file with rows.",
    )
