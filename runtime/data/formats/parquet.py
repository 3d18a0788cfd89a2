"""Read Parquet in batches of rows, with pyarrow if it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from ....errors import DataError, DependencyError, TextError, UsageError
from .rows import BadRow, RawRow, Table

_BATCH_ROWS = 256


def read_parquet(stream: BinaryIO, source: str) -> Table:
    """Read the rows of a Parquet file. Only one batch of rows is in memory as Python objects.

    Raises:
        DependencyError: pyarrow is not installed.
        UsageError: the stream is not seekable (a pipe).
        DataError: the file is not Parquet, or damaged.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DependencyError(
            "reading Parquet needs pyarrow",
            path=source,
            remedy="Run pip install 'reaugkd[train]', or write the rows as CSV or JSON lines.",
        ) from error
    if not stream.seekable():
        raise UsageError(
            "Parquet cannot be read from a pipe", path=source, remedy="Give the name of the file, or pipe JSON lines."
        )
    with _damage_reported(source):
        file = parquet.ParquetFile(stream)
        names = tuple(str(name) for name in file.schema_arrow.names)
    return Table(source, names, _rows(file, names, source))


def _rows(file: Any, names: tuple[str, ...], source: str) -> Iterator[RawRow | BadRow]:
    number = 0
    with _damage_reported(source):
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            columns = [_cells(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                bad = next((position for position, cell in enumerate(cells) if isinstance(cell, _NotUtf8)), None)
                if bad is None:
                    yield RawRow(number, dict(zip(names, cells, strict=True)))
                else:
                    yield BadRow(number, _not_utf8(source, number, names[bad]))


class _NotUtf8:
    """A placeholder for a string cell whose bytes are not UTF-8."""


def _cells(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_cell(scalar) for scalar in column]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _NotUtf8()


def _not_utf8(source: str, row: int, column: str) -> TextError:
    return TextError(
        "the bytes are not UTF-8",
        path=source,
        row=row,
        column=column,
        expected="UTF-8",
        remedy="Repair or drop the row.",
    )


@contextmanager
def _damage_reported(source: str) -> Iterator[None]:
    """Turn errors of pyarrow and of the file system into a DataError.

    Raises:
        DataError: the file cannot be read.
        ValueError: another error than pyarrow's; it passes through.
    """  # noqa: DOC501
    try:
        yield
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("pyarrow"):
            raise
        raise DataError(
            "the Parquet file cannot be read",
            path=source,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected="a complete Parquet file",
            remedy="Write the file again.",
        ) from error
