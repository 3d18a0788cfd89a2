"""Read plain text: one text on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .decoding.lines import read_lines
from .decoding.source import Source
from .rows import BadRow, RawRow, Table


def read_txt(source: Source) -> Table:
    r"""Read one text a line; every line is a row, also an empty one. A ``\r`` before the line end is dropped."""
    return Table(source.name, None, _rows(source))


def _rows(source: Source) -> Iterator[RawRow | BadRow]:
    for number, text, error in read_lines(source):
        if number == 1 and _looks_like_json(text):
            source.remark(
                "the lines look like JSON, but each is read as a text; --input-format jsonl or json reads rows"
            )
        yield RawRow(number, text.removesuffix("\r")) if error is None else BadRow(number, error)


def _looks_like_json(line: str) -> bool:
    if line.rstrip() in ("[", "{"):
        return True
    try:
        return line.startswith(("[", "{")) and isinstance(json.loads(line.rstrip().removesuffix(",")), list | dict)
    except (ValueError, RecursionError):
        return line.startswith("[{")
