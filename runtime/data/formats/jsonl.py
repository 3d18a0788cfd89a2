"""JSON lines, and JSON files of one array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ....errors import DataError
from ..rows import BadRow, RawRow, Table
from .lines import read_lines


def read_jsonl(stream: BinaryIO, source: str) -> Table:
    """One JSON value a line; blank lines are passed over; rows are counted in lines."""
    return Table(None, _jsonl_rows(stream, source))


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


def read_json(path: Path, source: str) -> Table | dict[str, object]:
    """A ``.json`` file: an array of rows, JSON lines under another name, or one object.

    Returns:
        A table (rows counted by their place in the array, or in lines), or the object where the file is a single one
        of lists, as clinc150's is.

    Raises:
        DataError: the file is neither.
    """
    with path.open("rb") as stream:
        lines = [_usable(line.text, line.error) for line in read_lines(stream, source)]
    first = next((line for line in lines if line and not line.isspace()), "").lstrip()
    if first.startswith("{") and _is_json(first):
        return Table(None, (_parse_row(line, source, row) for row, line in enumerate(lines, 1) if line.strip()))
    value = _parse_whole("\n".join(lines), source)
    if isinstance(value, list):
        return Table(None, iter([RawRow(row, item) for row, item in enumerate(value, 1)]))
    return value


def _usable(text: str, error: DataError | None) -> str:
    if error is not None:
        raise error
    return text


def _is_json(text: str) -> bool:
    """Whether the text is JSON by itself and no object of lists, which is a whole file on one line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not is_object_of_lists(value)


def is_object_of_lists(value: object) -> bool:
    """Whether a JSON value is an object whose every value is a list."""
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
            if isinstance(value, list) or is_object_of_lists(value):
                return value  # type: ignore[no-any-return]
            found = f"a JSON {type(value).__name__}"
    raise DataError(
        "the JSON file holds no rows",
        path=source,
        found=found,
        expected="an array of objects, one object a line, or one object of splits",
        remedy="Write it as JSON lines (.jsonl).",
    )
