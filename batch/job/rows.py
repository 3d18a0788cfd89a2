"""The rows of a part, some hundred at a time: the kept cells as an Arrow batch, and the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ...errors import ColumnError, DataError, ReaugkdError, TextError
from ...runtime.data.cells import check_text, is_unicode
from ...runtime.data.formats.decoding.opening import open_file
from ...runtime.data.formats.rows import BadRow, RawRow
from ...runtime.inference.text.inputs import Text
from ..answers import cells_of
from .inputs import InputFile
from .plan import Part, Plan
from .scan import as_cell, named_rows, parquet_file

CHUNK_ROWS = 512


class Chunk(NamedTuple):
    """Some rows: the kept columns, and for each row its number in the file and its text, or why there is none."""

    kept: Any
    texts: list[tuple[int, Text | ReaugkdError]]


class PartReader:
    """Reads the rows of parts.

    A text file is read from its beginning, so it stays open: the next part of the same file is reached by reading on.

    Args:
        plan: the plan of the job.
    """

    def __init__(self, plan: Plan[Any]) -> None:
        self._plan = plan
        self._names = [plan.text] if plan.text_pair is None else [plan.text, plan.text_pair]
        self._open = ExitStack()
        self._file: InputFile | None = None
        self._rows: Iterator[RawRow | BadRow] = iter(())
        self._at = 0

    def chunks(self, part: Part) -> Iterator[Chunk]:
        """The rows of a part.

        Raises:
            DataError: the file cannot be read, or has changed since the plan was made.
        """  # noqa: DOC501
        now = InputFile.of(Path(part.file.path))
        if now != part.file:
            expected = f"the {part.file.size:,} bytes of that time, not written again"
            raise _changed(part, f"{now.size:,} bytes", expected, self._plan.options.anew)
        read = self._table(part) if part.file.format.name == "parquet" else self._lines(part)
        count = 0
        for chunk in read:
            count += len(chunk.texts)
            yield chunk
        if count != part.rows:
            raise _changed(part, f"{count:,} rows", f"{part.rows:,}", self._plan.options.anew)

    def close(self) -> None:
        """Close the open file."""
        self._open.close()
        self._file, self._rows, self._at = None, iter(()), 0

    def _table(self, part: Part) -> Iterator[Chunk]:
        """Read only the row groups of the part."""
        wanted = list(dict.fromkeys([*self._plan.schema.names, *self._names]))
        with parquet_file(part.file) as opened:
            groups: list[int] = []
            skip = before = 0
            for number in range(opened.num_row_groups):
                rows = opened.metadata.row_group(number).num_rows
                if before < part.start + part.rows and part.start < before + rows:
                    skip = skip if groups else part.start - before
                    groups.append(number)
                before += rows
            at, left = part.start - skip + 1, part.rows
            for batch in opened.iter_batches(CHUNK_ROWS, groups, wanted, use_threads=False):
                rows = batch.slice(skip, left)
                at, skip = at + batch.num_rows - rows.num_rows, max(0, skip - batch.num_rows)
                if rows.num_rows:
                    yield self._table_chunk(rows, at, part)
                    at, left = at + rows.num_rows, left - rows.num_rows
                if not left:
                    return

    def _table_chunk(self, batch: Any, first: int, part: Part) -> Chunk:
        columns = [cells_of(batch.column(name)) for name in self._names]
        source = part.file.path
        texts = [
            (row, _text(row, cells, source, self._names)) for row, cells in enumerate(zip(*columns, strict=True), first)
        ]
        arrays = []
        for field in self._plan.schema:
            with _fits(field, source):
                arrays.append(batch.column(field.name).cast(field.type))
        kept = pa.Table.from_arrays(arrays, schema=self._plan.schema)
        return Chunk(kept, texts)

    def _lines(self, part: Part) -> Iterator[Chunk]:
        if self._file != part.file or self._at > part.start:
            self.close()
            stream = self._open.enter_context(open_file(Path(part.file.path)))
            _, self._rows = named_rows(part.file, stream, self._plan.options.encoding)
            self._file = part.file
        for _ in islice(self._rows, part.start - self._at):
            self._at += 1
        end = part.start + part.rows
        while self._at < end:
            rows = list(islice(self._rows, min(CHUNK_ROWS, end - self._at)))
            if not rows:
                return
            self._at += len(rows)
            yield self._line_chunk([self._usable(row, part.file.path) for row in rows], part.file)

    def _usable(self, row: RawRow | BadRow, source: str) -> RawRow | BadRow:
        """The row with its kept cells, or an error where one cannot be written."""
        if isinstance(row, BadRow):
            return row
        cells: dict[str, object] = row.value  # type: ignore[assignment]
        for name in self._plan.schema.names:
            cell = as_cell(cells.get(name), self._plan.schema.field(name).type)
            if isinstance(cell, str) and not is_unicode(cell):
                error = TextError(
                    "the text holds an unpaired surrogate", path=source, row=row.row, column=name, expected="Unicode"
                )
                return BadRow(row.row, error)
        return row

    def _line_chunk(self, rows: Sequence[RawRow | BadRow], file: InputFile) -> Chunk:
        # Plain text has no column: there, nan is a word.
        names = [None] * len(self._names) if file.format.name == "txt" else self._names
        nothing: dict[str, object] = {}
        values: list[dict[str, object]] = [
            nothing if isinstance(row, BadRow) else row.value  # type: ignore[misc]
            for row in rows
        ]
        arrays = []
        for field in self._plan.schema:
            with _fits(field, file.path):
                arrays.append(pa.array([as_cell(value.get(field.name), field.type) for value in values], field.type))
        texts = [
            (row.row, row.error if isinstance(row, BadRow) else _text(row.row, self._cells(value), file.path, names))
            for row, value in zip(rows, values, strict=True)
        ]
        return Chunk(pa.Table.from_arrays(arrays, schema=self._plan.schema), texts)

    def _cells(self, value: dict[str, object]) -> tuple[object, ...]:
        return tuple(value.get(name) for name in self._names)


def _text(row: int, cells: tuple[object, ...], source: str, names: Sequence[str | None]) -> Text | ReaugkdError:
    try:
        found = [check_text(cell, source, row, name) for cell, name in zip(cells, names, strict=True)]
    except DataError as error:
        return error
    return found[0] if len(found) == 1 else (found[0], found[1])


@contextmanager
def _fits(field: Any, source: str) -> Iterator[None]:
    """Report that cells of a file do not fit the column that it shares with other files.

    Raises:
        ColumnError: one does not fit.
    """
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError) as error:
        raise ColumnError(
            "a cell does not fit the type that the column has in other input files",
            path=source,
            column=field.name,
            found=str(error).splitlines()[0],
            expected=str(field.type),
            remedy="Write the files with the same types. `reaugkd batch --columns` can leave the column out.",
        ) from error


def _changed(part: Part, found: str, expected: str, anew: str) -> DataError:
    return DataError(
        "the input file has changed since the job began",
        path=part.file.path,
        found=found,
        expected=expected,
        remedy=f"{anew}.",
    )
