"""The columns of a job: one schema for all input files, and the columns of the texts in it."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ...errors import ColumnError
from ...runtime.data.columns import choose_columns
from ...runtime.data.dataset import Columns
from .inputs import InputFile
from .scan import Scanned, with_common_types

_Files = Sequence[tuple[InputFile, Scanned]]
_SAME = "Write the files with the same columns and types"


class JobColumns(NamedTuple):
    """The column of the text, that of the second text (None for single texts), and the schema of the kept columns."""

    text: str
    text_pair: str | None
    schema: Any


def job_columns(
    files: _Files, given: Columns, kept: tuple[str, ...] | None, pair: bool, *, optional: bool = True
) -> JobColumns:
    """Choose the columns of a job. A type becomes wider where a file needs it.

    Args:
        files: the input files that have rows.
        given: the text columns that the user names; None = detected.
        kept: the columns to keep; None for all.
        pair: whether the model reads pairs.
        optional: whether the user can name the kept columns, with ``--columns``.

    Raises:
        ColumnError: a column is missing (in JSON lines, a kept one may be), ambiguous, or of types that do not fit.
    """
    files = with_common_types(files)
    names = list(dict.fromkeys(name for _, scanned in files for name in scanned.schema.names))
    chosen = choose_columns(names, Columns(given.text, given.pair), named(files), pair=pair)
    kept = tuple(names if kept is None else dict.fromkeys(kept))
    for name in kept:
        if name not in names:
            found = ", ".join(map(repr, names))
            raise ColumnError("there is no such column", path=named(files), column=name, found=found)
    read = {*kept, chosen.text, *([] if chosen.pair is None else [chosen.pair])}
    schema = pa.schema([])
    try:
        for file, scanned in files:
            _require_all(file, scanned, [name for name in names if name in read])
            schema = _unified(schema, pa.schema([field for field in scanned.schema if field.name in kept]), file)
    except ColumnError as error:
        texts = [name for name in (chosen.text, chosen.pair) if name is not None]
        if not optional or not all(_is_everywhere(name, files) for name in texts):
            raise error.at(remedy=f"{_SAME}.") from error
        fitting = [name for name in kept if _is_everywhere(name, files) and _have_one_type(name, files)]
        raise error.at(remedy=f"{_SAME}, or keep only those that fit: --columns {_argument(fitting)}") from error
    return JobColumns(chosen.text, chosen.pair, pa.schema([schema.field(name) for name in kept]))


def named(files: _Files) -> str:
    """The files, for a message about the columns of all of them."""
    first, *others = [file.path for file, _ in files]
    return f"{first} and {len(others)} more" if others else first


def _require_all(file: InputFile, scanned: Scanned, names: Sequence[str]) -> None:
    missing = [name for name in names if not _has(name, file, scanned)]
    if missing:
        raise ColumnError(
            "the file lacks columns of the other input files",
            path=file.path,
            found=", ".join(map(repr, scanned.schema.names)),
            expected=f"also {', '.join(map(repr, missing))}",
        )


def _unified(schema: Any, other: Any, file: InputFile) -> Any:
    try:
        return pa.unify_schemas([schema, other], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise ColumnError(
            "the columns of the input files have types that do not fit",
            path=file.path,
            found=str(error).splitlines()[0],
            expected="the types of the files before it",
        ) from error


def _has(name: str, file: InputFile, scanned: Scanned) -> bool:
    """Whether the file has the column, or may have it: each row of JSON lines has columns of its own."""
    return file.format.name == "jsonl" or name in scanned.schema.names


def _is_everywhere(name: str, files: _Files) -> bool:
    return all(_has(name, file, scanned) for file, scanned in files)


def _have_one_type(name: str, files: _Files) -> bool:
    found = [pa.schema([one.schema.field(name)]) for _, one in files if name in one.schema.names]
    try:
        pa.unify_schemas(found, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _argument(names: Sequence[str]) -> str:
    """The names as `--columns` reads them, in a shell."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return shlex.quote(line.getvalue())
