"""Read rows with their labels, to edit a knowledge base: nothing is split, and every label name is accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError, LabelError
from .cells import check_label, check_text
from .columns import ChosenColumns, choose_columns
from .dataset import Columns
from .files import once, parts_to_read, require_format, require_label_format
from .formats import format_of
from .formats.decoding.opening import open_file
from .formats.decoding.source import Tell, silent
from .formats.rows import BadRow, Table


class LabelledRow(NamedTuple):
    """A row with a label.

    Attributes:
        row: the 1-based number in the source, with the header counted.
        text: the text, or the two texts of a pair.
        label: the name of the label; None with a soft label.
        soft: the soft label, label name -> share; None with a label.
    """

    row: int
    text: str | tuple[str, str]
    label: str | None
    soft: Mapping[str, float] | None


def read_labelled_rows(
    file: Path | BinaryIO,
    format: str | None = None,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    pair: bool = False,
    tell: Tell = silent,
) -> list[LabelledRow]:
    """Read all rows of a file in a format with labels, or of a folder with the parts of a table, numbered through.

    A label is a name, or in JSON also an object of label names and shares.

    Args:
        file: a path, or a binary stream.
        format: the name of the format; None = by the path's suffix, and ``json`` for a stream (JSON lines or an
            array).
        columns: the columns; None = detected by their usual names.
        pair: whether texts are pairs.
        tell: receives remarks on how files are read where that is not the default.

    Raises:
        DataError: the file, or a row of it, cannot be used.
        UsageError: the format is unknown.
    """
    tell = once(tell)
    if not isinstance(file, Path):
        source = getattr(file, "name", "<stream>")
        return _read(
            require_format(None, format or "json").read_rows(file, source, columns.encoding, tell), columns, pair
        )
    rows: list[LabelledRow] = []
    for path in parts_to_read(file, tell).files:
        known = format or format_of(path)
        file_format = require_format(path, format) if known else require_label_format(path)
        if not file_format.labels:
            raise DataError(
                "plain text has no labels",
                path=path,
                expected="a table with a column of labels, or JSON",
                remedy="Give the texts as arguments with --label, or write them as CSV or JSON lines.",
            )
        with open_file(path) as stream:
            found = _read(file_format.read_rows(stream, str(path), columns.encoding, tell), columns, pair)
        before = rows[-1].row if rows else 0
        rows += [row._replace(row=before + row.row) for row in found]
    return rows


def _read(table: Table, columns: Columns, pair: bool) -> list[LabelledRow]:
    source = table.source
    chosen = None if table.header is None else choose_columns(table.header, columns, source, pair=pair, label=True)
    rows = []
    for row in table.rows:
        if isinstance(row, BadRow):
            raise row.error
        if not isinstance(row.value, dict):
            raise DataError("the row is not an object", path=source, row=row.row, expected="an object with a label")
        chosen = chosen or choose_columns(tuple(row.value), columns, source, pair=pair, label=True)
        rows.append(_labelled_row(row.row, row.value, chosen, source))
    if not rows:
        raise DataError("the file has no rows", path=source)
    return rows


def _labelled_row(row: int, value: dict[str, object], chosen: ChosenColumns, source: str) -> LabelledRow:
    assert chosen.label is not None
    text = check_text(value.get(chosen.text), source, row, chosen.text)
    both = text if chosen.pair is None else (text, check_text(value.get(chosen.pair), source, row, chosen.pair))
    label = value.get(chosen.label)
    if isinstance(label, dict):
        return LabelledRow(row, both, None, _soft_label(label, source, row, chosen.label))
    return LabelledRow(row, both, check_label(label, source, row, chosen.label), None)


def _soft_label(label: dict[str, object], source: str, row: int, column: str) -> dict[str, float]:
    shares = {
        name: float(share)
        for name, share in label.items()
        if isinstance(share, int | float) and not isinstance(share, bool)
    }
    if len(shares) != len(label) or not all(math.isfinite(share) and share >= 0 for share in shares.values()):
        raise LabelError(
            "the soft label cannot be used",
            path=source,
            row=row,
            column=column,
            found=label,
            expected="label names and shares, each share a finite number of at least 0",
        )
    return shares
