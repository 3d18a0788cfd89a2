"""Read JSON lines, and JSON files that hold one array or several splits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from ....errors import DataError
from .clinc150 import read_split_object
from .lines import read_lines
from .rows import BadRow, RawRow, SplitFile, Table


def read_jsonl(stream: BinaryIO, source: str) -> Table:
    """Read one JSON value a line. Blank lines are skipped; the row number is the line number."""
    return Table(source, None, _jsonl_rows(stream, source))


def _jsonl_rows(stream: BinaryIO, source: str) -> Iterator[RawRow | BadRow]:
    for number, text, error in read_lines(stream, source):
        if error is not None:
            yield BadRow(number, error)
        elif text and not text.isspace():
            yield _parse_row(text, source, number)


def _parse_row(text: str, source: str, number: int) -> RawRow | BadRow:
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


def read_json(stream: BinaryIO, source: str) -> Table | SplitFile:
    """Read a ``.json`` file: an array of rows, JSON lines with this suffix, or one object of splits (CLINC150).

    The whole file is in memory. The row number is the position in the array, or the line number.

    Raises:
        DataError: the file is none of these.
    """
    lines = [_checked(line.text, line.error) for line in read_lines(stream, source)]
    first = next((line for line in lines if line and not line.isspace()), "").lstrip()
    if first.startswith("{") and _is_json_row(first):
        rows = (_parse_row(line, source, row) for row, line in enumerate(lines, 1) if line.strip())
        return Table(source, None, rows)
    value = _parse_whole("\n".join(lines), source)
    if isinstance(value, dict):
        return read_split_object(value, source)
    return Table(source, None, iter([RawRow(row, item) for row, item in enumerate(value, 1)]))


def _checked(text: str, error: DataError | None) -> str:
    if error is not None:
        raise error
    return text


def _is_json_row(text: str) -> bool:
    """Whether the text is a JSON value other than an object of lists, which would be a whole file on one line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not _is_object_of_lists(value)


def _is_object_of_lists(value: object) -> bool:
    """Whether a JSON value is an object whose values are all lists."""
    return isinstance(value, dict) and bool(value) and all(isinstance(item, list) for item in value.values())


def _parse_whole(text: str, source: str) -> list[object] | dict[str, object]:
    found = "nothing"
    if text and not text.isspace():
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            found = f"{error.msg} at line {error.lineno}, character {error.colno}"
        except (RecursionError, ValueError):
            found = "values nested too deep, or a number with too many digits"
        else:
            if isinstance(value, list) or _is_object_of_lists(value):
                return value  # type: ignore[no-any-return]
            found = f"a JSON {type(value).__name__}"
    raise DataError(
        "the JSON file holds no rows",
        path=source,
        found=found,
        expected="an array of objects, one object a line, or one object of splits",
        remedy="Write it as JSON lines (.jsonl).",
    )
