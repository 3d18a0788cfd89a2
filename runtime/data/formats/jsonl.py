"""Read JSON lines: one JSON value a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from ....errors import DataError
from .decoding.lines import Line, read_lines
from .decoding.source import Source
from .rows import BadRow, RawRow, Table

# The first line of an array or object that goes on in the next line.
_UNFINISHED = re.compile(r"\s*(\[\s*(\{.*)?|\{\s*)")


def read_jsonl(source: Source) -> Table:
    """Read one JSON value a line. Blank lines are skipped; the row number is the line number.

    The first step of the rows raises DataError if the file is one JSON array or object instead.
    """
    return Table(source.name, None, _rows_of_lines(source))


def _rows_of_lines(source: Source) -> Iterator[RawRow | BadRow]:
    first = True
    for row in parse_lines(read_lines(source), source.name):
        if first and isinstance(row, RawRow) and is_whole_file(row.value):
            raise _not_lines(source.name, f"a JSON {'array' if isinstance(row.value, list) else 'object'} of rows")
        first = False
        yield row


def parse_lines(lines: Iterable[Line], source: str) -> Iterator[RawRow | BadRow]:
    """Parse each line that is not blank.

    Raises:
        DataError: the first of them is the beginning of an array or object that takes several lines.
    """  # noqa: DOC501
    first = True
    for number, text, error in lines:
        if error is not None:
            yield BadRow(number, error)
        elif text and not text.isspace():
            row = parse_row(text, source, number)
            if first and isinstance(row, BadRow) and _UNFINISHED.fullmatch(text):
                raise _not_lines(source, "a JSON value over several lines")
            yield row
        first = first and (not text or text.isspace())


def parse_row(text: str, source: str, number: int) -> RawRow | BadRow:
    """Parse the JSON value of one line."""
    try:
        return RawRow(number, json.loads(text))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}"
    except (RecursionError, ValueError) as error:
        reason = "nesting too deep" if isinstance(error, RecursionError) else "a number with too many digits"
    finding = DataError(
        "malformed JSON",
        path=source,
        row=number,
        found=f"{text[:40]!r} ({reason})",
        expected="one JSON value a line",
        remedy="Correct the line.",
    )
    return BadRow(number, finding)


def is_whole_file(value: object) -> bool:
    """Whether a JSON value is a file of rows, and not one row, which has a string or is a text or a pair of texts."""
    if isinstance(value, list):
        return len(value) != 2 or not all(isinstance(item, str) for item in value)
    return isinstance(value, dict) and bool(value) and all(isinstance(item, list | dict) for item in value.values())


def _not_lines(source: str, found: str) -> DataError:
    return DataError(
        "the file is not JSON lines",
        path=source,
        found=found,
        expected="one JSON object a line",
        remedy="Read it as json, not as jsonl: with --input-format json, or by a name that ends with .json.",
    )
