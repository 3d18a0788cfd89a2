"""Read Parquet, Arrow and Feather files in batches of rows, with pyarrow if it is installed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ....errors import DataError, DependencyError, TextError
from .decoding.source import Source
from .rows import BadRow, RawRow, Table

_BATCH_ROWS = 256


def read_parquet(source: Source) -> Table:
    """Read the rows of a Parquet file. Only one batch of rows is in memory as Python objects.

    Bytes are read as UTF-8. The names that `datasets` stores for class numbers are the labels.

    Raises:
        DependencyError: pyarrow is not installed.
        DataError: the file is not Parquet, or damaged.
    """
    parquet = _pyarrow(source, lambda: importlib.import_module("pyarrow.parquet"))
    with _damage_reported(source, "Parquet"):
        file = parquet.ParquetFile(source.stream)
    batches = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
    return _table(file.schema_arrow, batches, source, "Parquet")


def read_arrow(source: Source) -> Table:
    """Read the rows of an Arrow file or stream, or of a Feather file (version 2), which is the same.

    Raises:
        DependencyError: pyarrow is not installed.
        DataError: the file is not Arrow, or damaged.
    """
    ipc = _pyarrow(source, lambda: importlib.import_module("pyarrow.ipc"))
    with _damage_reported(source, "Arrow"):
        is_file = source.stream.read(6) == b"ARROW1"
        source.stream.seek(0)
        reader = (ipc.open_file if is_file else ipc.open_stream)(source.stream)
    whole = (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else iter(reader)
    parts = (part for batch in whole for part in _checked_parts(batch))
    return _table(reader.schema, parts, source, "Arrow")


def _checked_parts(batch: Any) -> Iterator[Any]:
    batch.validate(full=True)  # wrong offsets in a damaged file would be read as they are
    return (batch.slice(at, _BATCH_ROWS) for at in range(0, batch.num_rows, _BATCH_ROWS))


def _pyarrow(source: Source, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError as error:
        raise DependencyError(
            "reading Parquet and Arrow needs pyarrow",
            path=source.name,
            remedy="Run pip install pyarrow, or write the rows as CSV or JSON lines.",
        ) from error


def _table(schema: Any, batches: Iterable[Any], source: Source, kind: str) -> Table:
    names = tuple(str(name) for name in schema.names)
    classes = _class_names(schema.metadata)
    return Table(source.name, names, _rows(batches, names, classes, source, kind), classes)


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the names of the ClassLabel columns that `datasets` describes in the schema."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: feature.get("names") for column, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        column: tuple(names)
        for column, names in found.items()
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    }


def _rows(
    batches: Iterable[Any], names: tuple[str, ...], classes: Mapping[str, tuple[str, ...]], source: Source, kind: str
) -> Iterator[RawRow | BadRow]:
    number = 0
    with _damage_reported(source, kind):
        for batch in batches:
            columns = [_cells(column, classes.get(name)) for name, column in zip(names, batch.columns, strict=True)]
            for cells in zip(*columns, strict=True):
                number += 1
                bad = next((position for position, cell in enumerate(cells) if isinstance(cell, _NotUtf8)), None)
                if bad is None:
                    yield RawRow(number, dict(zip(names, cells, strict=True)))
                else:
                    yield BadRow(number, _not_utf8(source.name, number, names[bad]))


class _NotUtf8:
    """A placeholder for a string cell whose bytes are not UTF-8."""


def _cells(column: Any, classes: tuple[str, ...] | None) -> list[Any]:
    try:
        cells = list(column.to_pylist())
    except UnicodeDecodeError:
        cells = [_cell(scalar) for scalar in column]
    return [_as_text(cell, classes) for cell in cells]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _NotUtf8()


def _as_text(cell: Any, classes: tuple[str, ...] | None) -> Any:
    """Return a cell with the name of its class, or the text of its bytes; other bytes (of images) stay bytes."""
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError:
            return cell
    if classes is not None and isinstance(cell, int) and -1 <= cell < len(classes):
        return None if cell == -1 else classes[cell]  # -1 stands for no label
    return cell


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
def _damage_reported(source: Source, kind: str) -> Iterator[None]:
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
            f"the {kind} file cannot be read",
            path=source.name,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected=f"a complete {kind} file",
            remedy="Write the file again.",
        ) from error
