"""Read plain text: one text on each line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from .lines import read_lines
from .rows import BadRow, RawRow, Table


def read_txt(stream: BinaryIO, source: str) -> Table:
    r"""Read one text a line; every line is a row, also an empty one. A ``\r`` before the line end is dropped."""
    return Table(source, None, _rows(stream, source))


def _rows(stream: BinaryIO, source: str) -> Iterator[RawRow | BadRow]:
    for number, text, error in read_lines(stream, source):
        yield RawRow(number, text.removesuffix("\r")) if error is None else BadRow(number, error)
