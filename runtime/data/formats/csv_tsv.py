"""Read tables of text: CSV in its dialects, and TSV with or without quoting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from ....errors import DataError
from .csv_records import CsvRecords
from .decoding.lines import Line, read_lines
from .decoding.source import Source
from .dialect import COMMA, TAB, Dialect, are_tabs_quoted, dialect_of, hinted_delimiter
from .rows import BadRow, RawRow, Table, empty_file

# CoLA's files in GLUE have no header line.
_COLA_HEADER = ("source", "label", "mark", "sentence")

_TABS = Dialect(TAB)
_TAB_REMEDY = "A tab always ends a cell in this file, and a line break a row: no cell is quoted."

# How far to read ahead from the first quote of a tab-separated table, to find out what its quotes mean.
_LOOK_AHEAD_CHARS = 256 * 1024


def read_csv(source: Source) -> Table:
    """Read rows with a header, quoted as in RFC 4180, so that a cell can hold line breaks.

    Commas, semicolons, tabs or ``|`` separate the cells: what the header holds most often, or what ``sep=`` before it
    names. Rows are numbered as in a spreadsheet: the header is row 1, and a row that spans several lines is one row. A
    quote that is never closed makes its own line a bad row; reading continues with the next line.

    Raises:
        DataError: the stream is empty, or its header cannot be read.
    """
    return _read_table(source, COMMA)


def read_tsv(source: Source) -> Table:
    r"""Read tab-separated rows with a header; GLUE's are unquoted, those of pandas and Excel quoted as in CSV.

    Which of them it is shows at the first quote. Rows end at ``\n``, or at ``\r\n`` if the first line does. The first
    line is the header, except in CoLA's files, which have none. A header without a tab is read as in `read_csv`.

    Raises:
        DataError: the stream is empty, or its first line cannot be read.
    """
    return _read_table(source, TAB)


def _read_table(source: Source, usual: str) -> Table:
    lines = read_lines(source)
    first = _require_line(next(lines, None), source)
    before, hint = 0, hinted_delimiter(first.text)
    if hint is not None:
        before, first = 1, _require_line(next(lines, None), source)
    dialect = Dialect(hint) if hint else dialect_of(first.text, usual)
    for remark in dialect.remarks(usual):
        source.remark(remark)
    if dialect.delimiter == TAB:
        return _tab_table(first, lines, source)
    return _quoted_table(chain([first], lines), source, dialect, before)


def _require_line(line: Line | None, source: Source) -> Line:
    if line is None:
        raise empty_file(source.name)
    if line.error is not None:
        raise line.error
    return line


def _tab_table(first: Line, lines: Iterator[Line], source: Source) -> Table:
    ending = "\r" if first.text.endswith("\r") else ""
    header = tuple(first.text.removesuffix(ending).split(TAB))
    lines = chain([first], lines)
    if '"' in first.text:
        quoted, lines = _find_quoting(lines, len(header), source)
        if quoted:
            return _quoted_table(lines, source, _TABS)
    if _is_cola_row(header):
        return Table(source.name, _COLA_HEADER, _tab_rows(lines, _COLA_HEADER, ending, source))
    next(lines)
    return Table(source.name, header, _tab_rows(lines, header, ending, source))


def _is_cola_row(cells: tuple[str, ...]) -> bool:
    """Whether these are a row of CoLA: source, label 0 or 1, the linguists' mark (``*`` or nothing), sentence."""
    return len(cells) == 4 and cells[1] in ("0", "1") and cells[2] in ("", "*")


def _find_quoting(lines: Iterator[Line], width: int, source: Source) -> tuple[bool, Iterator[Line]]:
    """Return whether quotes are quoting, by the lines from the first quote on, and all lines again."""
    sample: list[Line] = []
    size = 0
    for line in lines:
        sample.append(line)
        size += len(line.text) + 1
        if size > _LOOK_AHEAD_CHARS:
            break
    found = are_tabs_quoted("\n".join(line.text for line in sample), width, complete=size <= _LOOK_AHEAD_CHARS)
    if found:
        source.remark("cells are quoted, as pandas and Excel write them")
    elif found is None:
        source.remark(
            f"line {sample[0].number}: quotes around whole cells are taken as quoting: "
            "they are left out, and a line break between them is part of the text"
        )
    return found is not False, chain(sample, lines)


def _tab_rows(lines: Iterator[Line], header: tuple[str, ...], ending: str, source: Source) -> Iterator[RawRow | BadRow]:
    """Yield rows; the first quote decides about quoting: up to it both kinds of table are alike."""
    for line in lines:
        if '"' in line.text:
            quoted, rest = _find_quoting(chain([line], lines), len(header), source)
            if quoted:
                yield from _quoted_rows(CsvRecords(rest, source.name, _TABS, line.number - 1), header, source, _TABS)
                return
            yield from _unquoted_rows(rest, header, ending, source.name)
            return
        row = _unquoted_row(line, header, ending, source.name)
        if row is not None:
            yield row


def _unquoted_rows(
    lines: Iterator[Line], header: tuple[str, ...], ending: str, source: str
) -> Iterator[RawRow | BadRow]:
    for line in lines:
        row = _unquoted_row(line, header, ending, source)
        if row is not None:
            yield row


def _unquoted_row(line: Line, header: tuple[str, ...], ending: str, source: str) -> RawRow | BadRow | None:
    number, text, error = line
    if error is not None:
        return BadRow(number, error)
    text = text.removesuffix(ending)
    cells = text.split(TAB)
    if len(cells) == len(header):
        return RawRow(number, dict(zip(header, cells, strict=True)))
    return BadRow(number, _ragged(source, number, len(cells), len(header), _TAB_REMEDY)) if text else None


def _quoted_table(lines: Iterator[Line], source: Source, dialect: Dialect, rows_before: int = 0) -> Table:
    records = CsvRecords(lines, source.name, dialect, rows_before)
    header = next(records)
    if isinstance(header, BadRow):
        raise header.error
    names = header[1]
    return Table(source.name, tuple(names), _quoted_rows(records, names, source, dialect))


def _quoted_rows(
    records: CsvRecords, header: Sequence[str], source: Source, dialect: Dialect
) -> Iterator[RawRow | BadRow]:
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
            hint = f"Quote every cell that holds {dialect.named} or a line break{where}."
            yield BadRow(number, _ragged(source.name, number, len(cells), width, hint))


def _ragged(source: str, row: int, found: int, expected: int, remedy: str) -> DataError:
    return DataError(
        "the row does not have as many cells as the header",
        path=source,
        row=row,
        found=f"{found} cells",
        expected=f"{expected} cells",
        remedy=remedy,
    )
