"""The end of a job: every part is checked, and `_SUCCESS` says what the output holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pyarrow import parquet

from ...errors import DataError
from ...kb.storage.atomic import atomic_write, remove_leftovers, sha256_file
from .part import part_schema
from .plan import Options, Plan

SUCCESS_FILE = "_SUCCESS"
TEMPORARY = re.compile(r"\.(part-\d+\.parquet|_plan\.json|_SUCCESS)\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class PartRecord:
    """A part of the output.

    Attributes:
        name: of its file.
        input: the input file.
        start: its first row there, from 0.
        rows: its rows.
        errors: of these, rows with an error.
        bytes: of its file.
        sha256: of its file.
    """

    name: str
    input: str
    start: int
    rows: int
    errors: int
    bytes: int
    sha256: str


def finish(plan: Plan[Options], out: Path, advance: Callable[[int, int], object]) -> list[PartRecord]:
    """Check every part and write `_SUCCESS`, a JSON object with the counts and the parts; leftovers are removed.

    Args:
        plan: the plan of the job, whose parts are all there.
        out: the output folder.
        advance: called with the number of parts checked and of all.

    Raises:
        DataError: a part is damaged or has not the rows that it should have.
        StorageError: the file cannot be written.
    """
    found = []
    for record in _records(plan, out):
        found.append(replace(record, sha256=sha256_file(out / record.name)))
        advance(len(found), len(plan.parts))
    for path in out.iterdir():
        leftover = TEMPORARY.fullmatch(path.name)
        if leftover:
            remove_leftovers(out / leftover[1])
    with atomic_write(out / SUCCESS_FILE) as stream:
        json.dump(_content(plan, found), stream, indent=1)
    return found


def read_success(plan: Plan[Options], out: Path) -> list[PartRecord]:
    """Read the parts that `_SUCCESS` lists, and compare it with the plan and with the sizes and footers of the parts.

    The SHA-256 sums are not compared: that would take reading all bytes.

    Raises:
        DataError: it cannot be read, a part is damaged, or it does not fit the parts.
    """  # noqa: DOC501
    path = out / SUCCESS_FILE
    remedy = "Remove it, and run the same command again: only this file is written again."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sizes = {one["name"]: one["bytes"] for one in content["parts"]}
        sums = {one["name"]: one["sha256"] for one in content["parts"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the list of the parts cannot be read",
            path=path,
            found=str(error) or type(error).__name__,
            expected="the file that `reaugkd batch` writes last",
            remedy=remedy,
        ) from error
    for name in (part.name for part in plan.parts if part.name in sizes):  # no other name in the list is opened
        try:
            size = (out / name).stat().st_size
        except OSError as error:
            raise _damaged(out / name, error.strerror or str(error)) from error
        if size != sizes[name]:
            raise _damaged(out / name, f"{size} bytes instead of {sizes[name]}")
    found = [replace(one, sha256=sums.get(one.name, "")) for one in _records(plan, out)]
    written, right = _values(content), _values(_content(plan, found))
    for name in {**right, **written}:
        if written.get(name) != right.get(name):
            raise DataError(
                "the list of the parts does not fit the parts",
                path=path,
                found=f"{name} = {written.get(name)}",
                expected=str(right.get(name)),
                remedy=remedy,
            )
    return found


def _content(plan: Plan[Options], parts: Sequence[PartRecord]) -> dict[str, Any]:
    return {
        "reaugkd": plan.options.reaugkd,
        "seal": plan.options.seal,
        "edits": plan.options.edits,
        "rows": sum(one.rows for one in parts),
        "errors": sum(one.errors for one in parts),
        "parts": [asdict(one) for one in parts],
    }


def _values(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `_SUCCESS`, each with its name."""
    found = {name: value for name, value in content.items() if name != "parts"}
    for part in content["parts"]:
        found.update({f"{name} of {part['name']}": value for name, value in part.items()})
    return found


def _records(plan: Plan[Options], out: Path) -> Iterator[PartRecord]:
    """The parts as their footers and sizes say, without the SHA-256.

    Raises:
        DataError: a part is damaged or has not the rows that it should have.
    """  # noqa: DOC501
    schema, error = part_schema(plan), plan.options.prefix + "error"
    for part in plan.parts:
        path = out / part.name
        try:
            with parquet.ParquetFile(path) as file:
                metadata, found = file.metadata, file.schema_arrow
                rows, leaves = metadata.num_rows, range(metadata.num_columns)
                # The last one: a kept struct can have a field whose path looks the same.
                leaf = max(one for one in leaves if metadata.schema.column(one).path == error)
                groups = [metadata.row_group(number).column(leaf) for number in range(metadata.num_row_groups)]
                errors = sum(group.num_values - group.statistics.null_count for group in groups)
        except (OSError, ValueError) as wrong:
            raise _damaged(path, str(wrong)) from wrong
        if found.names != schema.names or found.metadata != schema.metadata:
            raise _damaged(path, "a part of another job")
        if rows != part.rows:
            raise _damaged(path, f"{rows:,} rows instead of {part.rows:,}")
        yield PartRecord(part.name, part.file.path, part.start, rows, errors, path.stat().st_size, "")


def _damaged(path: Path, found: str) -> DataError:
    return DataError(
        "the part is damaged",
        path=path,
        found=found,
        expected="the file as it was written",
        remedy="Remove it, and run the same command again: only its rows are predicted again.",
    )
