"""Rows with their labels, as they stand in a file: for editing a knowledge base, where nothing is split or dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError, LabelError
from .cells import check_text
from .columns import Chosen, choose_columns
from .dataset import Columns
from .load import READERS, unreadable
from .records import format_of
from .rows import BadRow


class LabelledRow(NamedTuple):
    """A row: its 1-based number in the source, its text or pair, and its label's name or the shares of several."""

    row: int
    text: str | tuple[str, str]
    label: str | None
    soft: Mapping[str, float] | None


def read_labelled(
    file: Path | BinaryIO,
    format: str | None = None,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    pair: bool = False,
) -> list[LabelledRow]:
    """Read all rows of a CSV, TSV, JSON lines or Parquet file.

    A label is a name, or in JSON lines an object of names and shares.

    Args:
        file: a path, or a binary stream of JSON lines.
        format: csv, tsv, jsonl or parquet; None = told by the path's suffix, ``jsonl`` for a stream.
        columns: the columns; None = found by their usual names.
        pair: whether texts are pairs.

    Raises:
        DataError: the file, or a row of it, cannot be used.
    """
    if not isinstance(file, Path):
        return _rows(file, getattr(file, "name", "<stream>"), format or "jsonl", columns, pair)
    kind = format_of(file, format)
    if kind == "txt":
        raise DataError("a file of texts alone has no labels", path=file, expected="CSV, TSV, JSON lines or Parquet")
    try:
        with file.open("rb") as stream:
            return _rows(stream, str(file), kind, columns, pair)
    except OSError as error:
        raise unreadable(file, error) from error


def _rows(stream: BinaryIO, source: str, kind: str, columns: Columns, pair: bool) -> list[LabelledRow]:
    table = READERS[f".{kind}"](stream, source)
    chosen = None if table.header is None else choose_columns(table.header, columns, source, pair=pair, label=True)
    rows = []
    for row in table.rows:
        if isinstance(row, BadRow):
            raise row.error
        if not isinstance(row.value, dict):
            raise DataError("the row is no object", path=source, row=row.number, expected="an object with a label")
        chosen = chosen or choose_columns(tuple(row.value), columns, source, pair=pair, label=True)
        rows.append(_row(row.number, row.value, chosen, source))
    if not rows:
        raise DataError("there is not a single row", path=source)
    return rows


def _row(number: int, value: dict[str, object], chosen: Chosen, source: str) -> LabelledRow:
    assert chosen.label is not None
    text = check_text(value.get(chosen.text), source, number, chosen.text)
    both = text if chosen.pair is None else (text, check_text(value.get(chosen.pair), source, number, chosen.pair))
    label = value.get(chosen.label)
    if isinstance(label, dict):
        return LabelledRow(number, both, None, _shares(label, source, number, chosen.label))
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise LabelError("the label is missing", path=source, row=number, column=chosen.label, found=repr(label))
    return LabelledRow(number, both, str(label), None)


def _shares(label: dict[str, object], source: str, row: int, column: str) -> dict[str, float]:
    shares = {
        name: float(share)
        for name, share in label.items()
        if isinstance(share, int | float) and not isinstance(share, bool)
    }
    if len(shares) != len(label) or not all(math.isfinite(share) and share >= 0 for share in shares.values()):
        raise LabelError(
            "the soft label is unusable", path=source, row=row, column=column, found=label, expected="names and shares"
        )
    return shares
