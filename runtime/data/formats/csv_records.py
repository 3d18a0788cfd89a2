"""Split lines into the records of CSV, quoted as in RFC 4180."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator

from ....errors import DataError
from .decoding.lines import MAX_LINE_BYTES, Line
from .dialect import Dialect
from .rows import BadRow

# A quoted cell may span lines. If it exceeds this many characters, its opening quote counts as a stray one.
MAX_RECORD_CHARS = 4 * 1024 * 1024
# Each stray quote halves the limit for the next cell, down to this minimum; each good row raises it by its length.
# Otherwise a file with a stray quote on every line would be read once for every line.
_MIN_RECORD_CHARS = 4096

_BACKSLASH = 'Write a quote inside a cell as "", not as \\".'


class CsvRecords(Iterator["tuple[int, list[str], int] | BadRow"]):
    """Iterates over the records of quoted lines as (row, cells, first line).

    It feeds ``csv.reader`` line by line and keeps the lines of the current record, to read them again after an error.
    """

    def __init__(self, lines: Iterator[Line], source: str, dialect: Dialect, rows_before: int = 0) -> None:
        # The csv module has one limit for all readers of the process, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES + MAX_RECORD_CHARS))
        self._source = source
        self._lines = lines
        self._waiting: list[Line] = []
        self._taken: list[Line] = []
        self._taken_chars = 0
        self._number = rows_before
        self._limit = MAX_RECORD_CHARS
        self._reader = csv.reader(
            _Feed(self._take_line),
            strict=True,
            delimiter=dialect.delimiter,
            skipinitialspace=dialect.blank_after_delimiter,
        )

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
            remedy=_BACKSLASH if '\\"' in first.text else "Double the quotes inside the cell, or write JSON lines.",
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
