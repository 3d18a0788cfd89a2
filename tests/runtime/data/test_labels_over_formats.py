"""One data frame has the same labels in every format, as pandas and pyarrow write it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reaugkd import DataError
from reaugkd.runtime.data import Dataset, load_dataset

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
arrow_csv = pytest.importorskip("pyarrow.csv")
parquet = pytest.importorskip("pyarrow.parquet")

WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}

INTEGERS = st.integers(-3, 12)
WORDS = st.one_of(
    st.sampled_from(["on", "off ", " on", "1", "1.0", "01", "True", "true", "nan", "None", "a b", "", " ", "[x]"]),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters='"\ufeff'),
        max_size=4,
    ),
)


def columns(values: st.SearchStrategy[Any], dtypes: list[Any]) -> st.SearchStrategy[Any]:
    """Columns of one type, of which pandas may have to change the type because a value is missing."""
    some = st.lists(values, min_size=2, max_size=8)
    missing = st.lists(values | st.none(), min_size=2, max_size=8)
    return st.builds(pandas.Series, some, dtype=st.sampled_from(dtypes)) | st.builds(
        pandas.Series, missing, dtype=st.just(dtypes[0])
    )


COLUMNS = st.one_of(
    columns(INTEGERS, ["Int64", "int64", "int8", "float64", "category"]),
    columns(INTEGERS, ["float64"]),
    columns(INTEGERS.map(lambda number: number / 2), ["float64", "category"]),
    columns(st.booleans(), ["boolean", "bool", "category"]),
    columns(st.booleans(), ["object"]),
    columns(WORDS, ["str", "object", "category"]),
    columns(st.lists(st.sampled_from(["on", "off", "a b"]), min_size=1, max_size=1), ["object"]),
)
PROPERTY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path) -> Any:
    """Return the labels by text, or what is wrong with them."""
    try:
        dataset = load_dataset(path)
    except DataError as error:
        return error.message, error.found
    return dataset.label_names, labels(dataset, "train")


def labels(dataset: Dataset, split: str) -> dict[str, str]:
    rows = dataset.splits[split]
    return dict(zip(rows.texts, rows.labels or [], strict=True))


def frame_of(series: Any) -> Any:
    return pandas.DataFrame({"text": [f"text {row}" for row in range(len(series))], "label": series})


@PROPERTY
@given(series=COLUMNS)
def test_a_data_frame_has_the_same_labels_in_every_format(tmp_path: Path, series: Any) -> None:
    found = {}
    for kind, write in WRITERS.items():
        write(frame_of(series), tmp_path / f"rows.{kind}")
        found[kind] = read(tmp_path / f"rows.{kind}")
    assert all(one == found["csv"] for one in found.values()), found


@PROPERTY
@given(values=st.lists(INTEGERS | st.none(), min_size=2, max_size=8).filter(lambda found: len({*found} - {None}) > 1))
def test_whole_numbers_keep_their_value_whatever_a_missing_one_made_of_them(
    tmp_path: Path, values: list[int | None]
) -> None:
    expected = {f"text {row}": str(value) for row, value in enumerate(values) if value is not None}
    for kind, write in WRITERS.items():
        write(frame_of(pandas.Series(values, dtype="float64")), tmp_path / f"rows.{kind}")
        dataset = load_dataset(tmp_path / f"rows.{kind}")
        assert labels(dataset, "train") == expected
        assert dataset.label_names == tuple(map(str, sorted({value for value in values if value is not None})))
        assert any("have no label and are left out" in note for note in dataset.notes) == (None in values)


@PROPERTY
@given(
    values=st.lists(st.booleans() | st.none(), min_size=2, max_size=8).filter(lambda found: {True, False} <= {*found})
)
def test_pyarrow_writes_what_pandas_writes(tmp_path: Path, values: list[bool | None]) -> None:
    table = pyarrow.table({"text": [f"text {row}" for row in range(len(values))], "label": values})
    parquet.write_table(table, tmp_path / "rows.parquet")
    arrow_csv.write_csv(table, tmp_path / "rows.csv")
    expected = {f"text {row}": str(value).lower() for row, value in enumerate(values) if value is not None}
    for kind in ("parquet", "csv"):
        assert labels(load_dataset(tmp_path / f"rows.{kind}"), "train") == expected


@pytest.mark.parametrize("dev", WRITERS)
@pytest.mark.parametrize("train", WRITERS)
@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1, 2, 1], ("0", "1", "2")),
        ([True, False, True, False], ("false", "true")),
        ([0.5, 1.0, 1.5, 1.0], ("0.5", "1.0", "1.5")),
        (["on", "off", "on", "off"], ("off", "on")),
    ],
)
def test_splits_of_different_formats_agree(
    tmp_path: Path, train: str, dev: str, values: list[Any], names: tuple[str, ...]
) -> None:
    frame = frame_of(pandas.Series(values))
    WRITERS[train](frame, tmp_path / f"train.{train}")
    if isinstance(values[0], str):
        frame["label"] = " " + frame["label"]
    elif values[0] == 0:
        frame["label"] = frame["label"].astype(float)
    else:
        frame["label"] = frame["label"].astype(object)
    frame.loc[len(frame)] = ["no label", math.nan]
    WRITERS[dev](frame, tmp_path / f"dev.{dev}")
    dataset = load_dataset(tmp_path)
    assert dataset.label_names == names
    assert labels(dataset, "dev") == labels(dataset, "train")
    known = load_dataset(tmp_path / f"dev.{dev}", label_names=names)
    assert labels(known, "train") == labels(dataset, "train")
