"""Read CLINC150's file (Larson et al., EMNLP 2019): one JSON object, split -> [[text, label], ...]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ....errors import DataError
from .rows import BadRow, RawRow, SplitFile, Table

_SPLITS = {"train": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}
_OOS_PREFIX = "oos_"


def read_split_object(content: Mapping[str, object], source: str) -> SplitFile:
    """Read the splits of the object.

    Args:
        content: the object; every value is a list of ``[text, label]``. The lists ``oos_train``, ``oos_val`` and
            ``oos_test`` hold out-of-scope rows; their row numbers continue those of the split.
        source: the file's name; messages add the split in brackets.

    Raises:
        DataError: there is no split, or one has an unknown name.
    """  # noqa: DOC501
    splits, with_out_of_scope = {}, {}
    for key, rows in content.items():
        split = _SPLITS.get(key.removeprefix(_OOS_PREFIX))
        if split is None or not isinstance(rows, list):
            raise _unknown(source, content)
        if key not in _SPLITS:
            continue
        if split in splits:
            raise _unknown(source, content)
        out_of_scope = content.get(_OOS_PREFIX + key)
        splits[split] = _table(rows, f"{source}[{key}]")
        both = [*rows, *(out_of_scope if isinstance(out_of_scope, list) else ())]
        with_out_of_scope[split] = _table(both, f"{source}[{key}]")
    if not splits:
        raise _unknown(source, content)
    return SplitFile(splits, with_out_of_scope)


def _table(items: Sequence[object], source: str) -> Table:
    return Table(source, ("text", "label"), _rows(items, source))


def _rows(items: Sequence[object], source: str) -> Iterator[RawRow | BadRow]:
    for number, item in enumerate(items, 1):
        if isinstance(item, list) and len(item) == 2:
            yield RawRow(number, {"text": item[0], "label": item[1]})
        else:
            error = DataError(
                "malformed row",
                path=source,
                row=number,
                found=repr(item),
                expected="[text, label]",
                remedy="Write every row as a list of two strings.",
            )
            yield BadRow(number, error)


def _unknown(source: str, content: Mapping[str, object]) -> DataError:
    return DataError(
        "the JSON object does not hold splits",
        path=source,
        found=", ".join(content),
        expected="train, val (or dev) and test, each at most once, and optionally oos_train, oos_val and oos_test",
        remedy="Rename its keys, or write the rows as JSON lines.",
    )
