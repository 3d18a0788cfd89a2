"""One JSON object of splits, split -> [[text, label], ...]: the file of clinc150 (Larson et al., EMNLP 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from ....errors import DataError
from ..assemble import read_split
from ..dataset import Columns, Split
from ..rows import BadRow, RawRow, Table

_SPLITS = {"train": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}
_OOS_PREFIX = "oos_"


def read_split_object(content: Mapping[str, object], source: str, *, with_oos: bool) -> dict[str, Split]:
    """Read the splits.

    Args:
        content: the object; every value a list of ``[text, label]``.
        source: the file's name; messages add the split.
        with_oos: whether the out-of-scope rows (``oos_train``, ...) join their splits, as the class they name. Their
            row numbers go on from those of the split.

    Raises:
        DataError: no split, a split of an unknown name, or a row that is no ``[text, label]``.
    """
    splits = {}
    for key, rows in content.items():
        ours = _SPLITS.get(key.removeprefix(_OOS_PREFIX))
        if ours is None or not isinstance(rows, list):
            raise _unknown(source, content)
        if key in _SPLITS:
            if ours in splits:
                raise _unknown(source, content)
            outside = content.get(_OOS_PREFIX + key) if with_oos else None
            label = f"{source}[{key}]"
            table = Table(("text", "label"), _rows(chain(rows, outside if isinstance(outside, list) else ()), label))
            splits[ours] = read_split(table, label, Columns("text", None, "label"), label=True)
    if not splits:
        raise _unknown(source, content)
    return splits


def _rows(items: Iterator[object], source: str) -> Iterator[RawRow | BadRow]:
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
                remedy="Write every row as a list of two.",
            )
            yield BadRow(number, error)


def _unknown(source: str, content: Mapping[str, object]) -> DataError:
    return DataError(
        "the JSON object does not hold splits",
        path=source,
        found=", ".join(content),
        expected="train, val (or dev) and test, each once; oos_train, oos_val and oos_test beside them",
        remedy="Rename its keys, or write the rows as JSON lines.",
    )
