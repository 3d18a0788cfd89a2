"""Read JSON files that hold a whole table, or several splits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from ....errors import DataError
from .decoding.lines import Line, read_lines
from .decoding.source import Source
from .jsonl import is_whole_file, parse_lines
from .rows import BadRow, RawRow, SplitFile, Table

_SPLITS = {"train": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}
_OOS_PREFIX = "oos_"  # CLINC150 (Larson et al., EMNLP 2019) has its out-of-scope rows in lists of their own
_PAIR = ("text", "label")
_CONTAINERS = ("data", "rows", "records", "examples")


def read_json(source: Source) -> Table | SplitFile:
    """Read a ``.json`` file.

    It is an array of rows; an object with one array of rows (``{"data": [...]}``); an object of splits, each a table
    in any of these forms or a list of ``[text, label]`` (CLINC150); a table as pandas writes it (``orient`` of
    columns, index, split or table); an object of columns, each a list; or JSON lines. The whole file is in memory. The
    row number is the position in the table, or the line number.

    Raises:
        DataError: the file is none of these.
    """
    lines = [_checked(line) for line in read_lines(source)]
    filled = [line.text for line in lines if line.text and not line.text.isspace()]
    if filled and _are_rows(filled):
        return Table(source.name, None, parse_lines(lines, source.name))
    value = _parse("\n".join(line.text for line in lines), source.name)
    if isinstance(value, dict) and _has_splits(value):
        return _read_splits(value, source)
    return _read_value(value, source, source.name)


def _checked(line: Line) -> Line:
    if line.error is not None:
        raise line.error
    return line


def _are_rows(lines: Sequence[str]) -> bool:
    """Whether the lines are JSON lines: the first is a whole object, and no file of its own."""
    if not lines[0].lstrip().startswith("{"):
        return False
    try:
        value = json.loads(lines[0])
    except (ValueError, RecursionError):
        return False
    return len(lines) > 1 or not (is_whole_file(value) or _only_rows(value) or _has_splits(value))


def _has_splits(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), list | dict) for key in _SPLITS)


def _parse(text: str, source: str) -> object:
    found = "nothing"
    if text and not text.isspace():
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            found = f"{error.msg} at line {error.lineno}, character {error.colno}"
        except (RecursionError, ValueError):
            found = "values nested too deep, or a number with too many digits"
    raise _no_rows(source, found)


def _read_splits(content: Mapping[str, object], source: Source) -> SplitFile:
    """Read an object of splits.

    The lists ``oos_train``, ``oos_val`` and ``oos_test`` hold out-of-scope rows; their row numbers continue those of
    the split.
    """  # noqa: DOC501
    splits, with_out_of_scope = {}, {}
    _remark_ignored(source, [key for key, value in content.items() if not isinstance(value, list | dict)])
    for key, rows in content.items():
        split = _SPLITS.get(key.removeprefix(_OOS_PREFIX))
        if not isinstance(rows, list | dict):
            continue
        if split is None or (key in _SPLITS and split in splits):
            raise _unknown_split(source.name, content)
        if key not in _SPLITS:
            continue
        name = f"{source.name}[{key}]"
        more = content.get(_OOS_PREFIX + key)
        splits[split] = _read_value(rows, source, name)
        both = [*rows, *more] if isinstance(rows, list) and isinstance(more, list) else rows
        with_out_of_scope[split] = _read_value(both, source, name)
    return SplitFile(splits, with_out_of_scope)


def _read_value(value: object, source: Source, name: str) -> Table:
    """Read a table in any of its forms.

    Raises:
        DataError: the value is no table.
    """  # noqa: DOC501
    if isinstance(value, list):
        pairs = name != source.name and bool(value) and isinstance(value[0], list)
        return Table(name, _PAIR, _cells(value, _PAIR, name)) if pairs else _rows(value, name)
    if not isinstance(value, dict):
        raise _no_rows(name, f"a JSON {type(value).__name__}")
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return _table_of_lists(value["columns"], value["data"], name)
    key = _only_rows(value)
    if key is not None:
        source.remark(f"the rows are those of {key!r}")
        _remark_ignored(source, [other for other in value if other != key])
        return _read_value(value[key], source, name)
    table = _table_of_columns(value, name)
    if table is None:
        raise _no_rows(name, f"an object of {', '.join(map(repr, list(value)[:6])) or 'nothing'}")
    return table


def _only_rows(value: object) -> str | None:
    """Return the key of the list of rows, if it is the only key or has one of the usual names, else None."""
    if not isinstance(value, dict):
        return None
    keys = [key for key in value if key in _CONTAINERS] or list(value)
    rows = value[keys[0]] if len(keys) == 1 else None
    return keys[0] if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows) else None


def _table_of_columns(value: Mapping[str, object], name: str) -> Table | None:
    """Read an object of columns, each a list or an object of cells by row (pandas), or of rows by their number."""
    columns = list(value.values())
    if all(isinstance(cells, list) for cells in columns):
        lists = [cells for cells in columns if isinstance(cells, list)]
        nested = any(isinstance(cell, list | dict) for cells in lists for cell in cells)
        if nested or len(set(map(len, lists))) != 1:
            return None
        return _rows([dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)], name)
    objects = [cells for cells in columns if isinstance(cells, dict)]
    if len(objects) < len(columns) or not objects:
        return None
    if all(key.isdecimal() for key in value):
        return _rows(objects, name)
    keys = list(objects[0])
    if not all(key.isdecimal() for key in keys) or any(list(cells) != keys for cells in objects):
        return None
    return _rows([{column: cells[key] for column, cells in zip(value, objects, strict=True)} for key in keys], name)


def _table_of_lists(columns: Sequence[object], rows: Sequence[object], name: str) -> Table:
    header = tuple(map(str, columns))
    return Table(name, header, _cells(rows, header, name))


def _cells(rows: Sequence[object], header: tuple[str, ...], name: str) -> Iterator[RawRow | BadRow]:
    for number, row in enumerate(rows, 1):
        if isinstance(row, list) and len(row) == len(header):
            yield RawRow(number, dict(zip(header, row, strict=True)))
        else:
            error = DataError(
                "malformed row",
                path=name,
                row=number,
                found=repr(row),
                expected=f"[{', '.join(header)}]",
                remedy=f"Write every row as a list of {len(header)} values.",
            )
            yield BadRow(number, error)


def _rows(rows: Sequence[object], name: str) -> Table:
    return Table(name, None, iter([RawRow(number, row) for number, row in enumerate(rows, 1)]))


def _remark_ignored(source: Source, keys: Sequence[str]) -> None:
    if keys:
        source.remark(f"not read: {', '.join(map(repr, keys))}")


def _no_rows(source: str, found: str) -> DataError:
    return DataError(
        "the JSON file holds no rows",
        path=source,
        found=found,
        expected="an array of objects, one object a line, one object of splits, or a table as pandas writes it",
        remedy="Write it as JSON lines (.jsonl); with pandas: to_json(path, orient='records', lines=True).",
    )


def _unknown_split(source: str, content: Mapping[str, object]) -> DataError:
    return DataError(
        "the JSON object has other keys beside its splits",
        path=source,
        found=", ".join(content),
        expected="train, val (or dev) and test, each at most once, and optionally oos_train, oos_val and oos_test",
        remedy="Rename its keys, or write the rows as JSON lines.",
    )
