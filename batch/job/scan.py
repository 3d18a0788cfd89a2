"""The first look at an input file: its number of rows and its columns. A text file is read once, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ...errors import ColumnError, DataError, EmptyFileError
from ...runtime.data.cells import is_unicode
from ...runtime.data.formats.decoding.opening import open_file
from ...runtime.data.formats.decoding.source import Tell, silent
from ...runtime.data.formats.rows import BadRow, RawRow
from .inputs import InputFile

_MOST_INTEGER = 2**63
_MOST_EXACT = 2**53  # a larger integer is not always a float64


@dataclass(frozen=True)
class Scanned:
    """What a file holds.

    Attributes:
        rows: its rows, bad ones included.
        schema: its columns, without metadata.
        kinds: the kinds of values of each column of JSON lines; empty for other files.
    """

    rows: int
    schema: Any
    kinds: Mapping[str, Set[object]] = field(default_factory=dict)

    @classmethod
    def of_lines(cls, rows: int, kinds: Mapping[str, Set[object]]) -> Scanned:
        """Columns of JSON lines, each of the type that has all its kinds of values."""
        return cls(rows, pa.schema([(name, _type(seen)) for name, seen in kinds.items()]), kinds)


def scan(file: InputFile, encoding: str | None, tell: Tell, advance: Callable[[int], object]) -> Scanned:
    """Count the rows of a file and find its columns.

    Cells of CSV, TSV and plain text are strings. A column of JSON lines is boolean, int64, float64 or string; one with
    objects, lists or values of several kinds is a column of strings, with all but strings as JSON. A file of no bytes,
    also after it is decompressed, has no rows and no columns.

    Args:
        file: the file.
        encoding: of a text file without a byte order mark; None for UTF-8.
        tell: receives remarks on how the file is read.
        advance: called now and then with the number of rows read so far.

    Raises:
        DataError: the file cannot be read, or a column appears twice.
    """
    nothing = Scanned(0, pa.schema([]))
    if not file.size:  # neither Parquet nor a compressed file can be empty, but a writer without rows may leave one
        return nothing
    if file.format.name == "parquet":
        with parquet_file(file) as opened:
            schema = _without_metadata(opened.schema_arrow)
            _require_distinct(schema.names, file)
            return Scanned(opened.metadata.num_rows, schema)
    kinds: dict[str, set[object]] = {}
    rows = 0
    with open_file(Path(file.path)) as stream:
        try:
            header, found = named_rows(file, stream, encoding, tell)
        except EmptyFileError:
            return nothing
        for rows, row in enumerate(found, start=1):
            if header is None and isinstance(row, RawRow):
                for name, value in row.value.items():  # type: ignore[attr-defined]
                    kinds.setdefault(name, set()).add(_kind(value))
            if rows % 1024 == 0:
                advance(rows)
    if header is not None:
        return Scanned(rows, pa.schema([(name, pa.string()) for name in header]))
    return Scanned.of_lines(rows, kinds)


def with_common_types(files: Sequence[tuple[InputFile, Scanned]]) -> list[tuple[InputFile, Scanned]]:
    """Give the columns of all files of JSON lines common types, that of the values of all these files."""
    kinds: dict[str, set[object]] = {}
    for _, scanned in files:
        for name, seen in scanned.kinds.items():
            kinds.setdefault(name, set()).update(seen)

    def common(scanned: Scanned) -> Scanned:
        if not scanned.kinds:
            return scanned
        return Scanned.of_lines(scanned.rows, {name: kinds[name] for name in scanned.kinds})

    return [(file, common(scanned)) for file, scanned in files]


def named_rows(
    file: InputFile, stream: Any, encoding: str | None, tell: Tell = silent
) -> tuple[tuple[str, ...] | None, Iterator[RawRow | BadRow]]:
    """Open a text file: its header (None for JSON lines), and its rows, each with a dict of its cells.

    A row that is one string has the column ``text``, one of two strings ``text`` and ``text_pair``.

    Raises:
        DataError: the file cannot be read, or a column appears twice.
    """
    table = file.format.read_rows(stream, file.path, encoding, tell)
    header, separator = table.header, file.format.pair_separator
    if header is not None:
        _require_distinct(header, file)
    return header, (_named(row, file, separator) for row in table.rows)


def _named(row: RawRow | BadRow, file: InputFile, separator: str | None) -> RawRow | BadRow:
    if isinstance(row, BadRow):
        return row
    value = row.value
    if isinstance(value, dict):
        wrong = next((name for name in value if not is_unicode(name)), None)
        if wrong is None:
            return row
        message = "the name of a column holds an unpaired surrogate"
        return BadRow(row.row, ColumnError(message, path=file.path, row=row.row, found=repr(wrong), expected="Unicode"))
    if isinstance(value, str) and separator is not None and value.count(separator) == 1:
        value = value.split(separator)
    if isinstance(value, str):
        return RawRow(row.row, {"text": value})
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value):
        return RawRow(row.row, dict(zip(("text", "text_pair"), value, strict=True)))
    error = ColumnError(
        "the row has no named columns",
        path=file.path,
        row=row.row,
        found=repr(value),
        expected='an object, {"text": ...}, or a string',
    )
    return BadRow(row.row, error)


def _kind(value: object) -> object:
    """The Python type of a JSON value; for an integer, how much it needs."""
    if type(value) is int:
        size = abs(value)
        return int if size <= _MOST_EXACT else "int64" if size < _MOST_INTEGER else object
    return type(value)


def _type(seen: Set[object]) -> Any:
    seen = seen - {type(None)}
    if seen == {bool}:
        return pa.bool_()
    if seen and seen <= {int, "int64"}:
        return pa.int64()
    if seen and seen <= {int, float}:
        return pa.float64()
    return pa.string()


def as_cell(value: object, kind: Any) -> object:
    """A JSON value as a cell of a column of this Arrow type."""
    if value is None or isinstance(value, str) or not pa.types.is_string(kind):
        return value
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def parquet_file(file: InputFile) -> Iterator[Any]:
    """Open a Parquet file.

    Raises:
        DataError: it is not Parquet, or damaged; also where the block finds that.
        ValueError: another error than pyarrow's; it passes through.
    """  # noqa: DOC501
    try:
        # The buffer keeps a whole column of a row group, which can be the file, out of memory.
        with parquet.ParquetFile(file.path, buffer_size=1 << 20, pre_buffer=False) as opened:
            yield opened
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("pyarrow"):
            raise
        raise DataError(
            "the Parquet file cannot be read",
            path=file.path,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected="a complete Parquet file",
            remedy="Write the file again.",
        ) from error


def _without_metadata(schema: Any) -> Any:
    return pa.schema([one.remove_metadata() for one in schema])


def _require_distinct(names: Any, file: InputFile) -> None:
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ColumnError("the column appears twice", path=file.path, column=twice, expected="one column of that name")
