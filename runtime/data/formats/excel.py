"""Read the first sheet of an Excel workbook, with openpyxl if it is installed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from ....errors import DependencyError
from .decoding.compression import require_sane_archive
from .decoding.source import Source, damage_reported
from .rows import RawRow, Table, empty_file


def read_excel(source: Source) -> Table:
    """Read the first sheet of a workbook: its first row is the header, and rows without any value are skipped.

    Raises:
        DependencyError: openpyxl is not installed.
        DataError: the file is not a workbook of Excel 2007 or later, or the sheet is empty.
    """  # noqa: DOC501
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError as error:
        raise DependencyError(
            "reading Excel needs openpyxl",
            path=source.name,
            remedy="Run pip install 'reaugkd[excel]', or save the sheet as CSV UTF-8.",
        ) from error
    with _damage_reported(source):
        require_sane_archive(source.stream, source.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of features that have no influence on the cells
            book = openpyxl.load_workbook(source.stream, read_only=True, data_only=True)
        sheet, *others = book.worksheets
        sheet.reset_dimensions()  # some programs store a wrong size
        rows = _numbered(sheet.iter_rows(values_only=True))
        header = next(rows, None)
    if header is None:
        raise empty_file(source.name)
    if others:
        source.remark(f"only the first of {len(others) + 1} sheets is read: {sheet.title!r}")
    names = tuple("" if name is None else str(name) for name in header[1])
    while not names[-1]:
        names = names[:-1]
    return Table(source.name, names, _rows(rows, names, source))


def _numbered(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    return ((number, cells) for number, cells in enumerate(rows, 1) if any(cell is not None for cell in cells))


def _rows(rows: Iterable[tuple[int, tuple[Any, ...]]], names: tuple[str, ...], source: Source) -> Iterator[RawRow]:
    with _damage_reported(source):
        for number, cells in rows:
            # Empty cells at the end of a row are not stored.
            filled = (*cells, *[None] * (len(names) - len(cells)))
            yield RawRow(number, dict(zip(names, filled, strict=False)))


def _damage_reported(source: Source) -> AbstractContextManager[None]:
    return damage_reported(
        source.name,
        "the workbook cannot be read",
        expected="a workbook of Excel 2007 or later (.xlsx)",
        remedy="Save it again as .xlsx, or as CSV UTF-8.",
    )
