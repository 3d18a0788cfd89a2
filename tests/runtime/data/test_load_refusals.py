"""Data sets that are refused: the error names the file, the row and the remedy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.file_kinds import write_csv

from reaugkd import ColumnError, DataError, DependencyError, LabelError, UsageError
from reaugkd.runtime.data import Columns, dataset_from_rows, label_indices, load_dataset

TRAIN = [("turn it on", "on"), ("turn it off, please", "off"), ('say "hi"\nto me', "on")]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (("body of it", "label"), Columns(), "no text column; columns found: 'body of it', 'label'"),
        (("text", "query", "label"), Columns(), "several columns could be the text: 'text', 'query'"),
        (("text", "label", "category"), Columns(), "several columns could be the label: 'label', 'category'"),
        (("text", "mood"), Columns(), "no label column; columns found: 'text', 'mood'"),
        (("text", "label"), Columns(text="txt"), "column 'txt': there is no such column; columns found: 'text'"),
        (("text", "label"), Columns(label="mood"), "column 'mood': there is no such column; columns found: 'text'"),
        (("text", "label"), Columns("text", "b"), "column 'b': there is no such column"),
        (("text", "text", "label"), Columns(), "column 'text': the column appears twice"),
        (("sentence1", "sentence2", "premise", "hypothesis"), Columns(), "several columns could be the text"),
    ],
)
def test_columns_that_are_missing_or_ambiguous(
    tmp_path: Path, header: tuple[str, ...], columns: Columns, message: str
) -> None:
    path = write_csv(tmp_path / "a.csv", [tuple("x" * len(header))], header)
    with pytest.raises(ColumnError) as caught:
        load_dataset(path, columns)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_dev_without_labels_is_refused_and_test_is_not(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", TRAIN)
    write_csv(tmp_path / "test.csv", [("c",)], ("text",))
    assert load_dataset(tmp_path).splits["test"].labels is None
    assert load_dataset(tmp_path, Columns(label="label")).splits["test"].labels is None
    write_csv(tmp_path / "dev.csv", [("c",)], ("text",))
    with pytest.raises(ColumnError, match=r"dev\.csv: no label column"):
        load_dataset(tmp_path)


def test_placeholder_labels_of_a_test_split_are_none() -> None:
    rows = {
        "train": [{"sentence": "a", "label": 0}, {"sentence": "b", "label": 1}],
        "test": [{"sentence": "c", "label": -1}],
    }
    dataset = dataset_from_rows("glue", rows)
    assert dataset.splits["test"].labels is None
    assert dataset.splits["train"].source == "glue[train]"


def test_a_label_outside_the_classes_names_its_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", TRAIN)
    path = write_csv(tmp_path / "dev.csv", [("a", "on"), ("b", "dim")])
    with pytest.raises(LabelError) as caught:
        label_indices(load_dataset(tmp_path).splits["dev"], ("off", "on"))
    error = caught.value
    assert (error.path, error.row, error.column) == (str(path), 3, "label")
    assert (error.found, error.expected) == ("'dim'", "one of 'off', 'on'")
    assert load_dataset(tmp_path, label_names=("dim", "off", "on")).label_names == ("dim", "off", "on")


def test_train_must_be_trainable_unless_the_classes_are_given(tmp_path: Path) -> None:
    one_class = write_csv(tmp_path / "a.csv", [("x", "on"), ("y", "on")])
    with pytest.raises(LabelError, match="only one class; found 'on' in all 2 rows"):
        load_dataset(one_class)
    one_row = write_csv(tmp_path / "b.csv", [("x", "on")])
    with pytest.raises(DataError, match=r"b\.csv: too few rows to train on; found 1 row"):
        load_dataset(one_row)
    for path in (one_class, one_row):
        assert load_dataset(path, label_names=("on", "off")).label_names == ("on", "off")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", b""), ("a.csv", b"text,label\n"), ("a.tsv", b""), ("a.tsv", b"text\tlabel\n"), ("a.jsonl", b"\n")],
)
def test_no_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: the file is empty; found 0 rows"):
        load_dataset(tmp_path / name)


def test_paths_that_hold_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found an empty folder"):
        load_dataset(tmp_path)
    (tmp_path / "a.docx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"unknown file format; found \.docx"):
        load_dataset(tmp_path / "a.docx")
    with pytest.raises(UsageError, match="unknown task; found 'sst5'"):
        load_dataset(tmp_path, task="sst5")
    write_csv(tmp_path / "dev.csv", TRAIN)
    write_csv(tmp_path / "val.csv", TRAIN)
    with pytest.raises(DataError, match=r"several files could be the dev split; found dev\.csv, val\.csv"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the JSON file holds no rows; found nothing"),
        ("5", "found a JSON int"),
        ('[{"text": "a"},', "at line 1, character"),
        ("[]", "the file is empty"),
        ('["a"]', "row 1: the row has no named columns; found 'a'"),
        ('{"train": [["a"]]}', "row 1: malformed row; found ['a']; expected [text, label]"),
        ('{"rows": [["a", "b"]]}', "the JSON file holds no rows; found an object of 'rows'"),
        ('{"text": "a", "label": "x"}\n{"text"\n', "row 2: malformed JSON"),
    ],
)
def test_json_that_is_no_data_set(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "a.json")
    assert message in str(caught.value)


def test_splits_must_be_alike(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", TRAIN)
    write_csv(tmp_path / "dev.csv", [("a", "b", "on")], ("sentence1", "sentence2", "label"))
    with pytest.raises(ColumnError, match="train: single, dev: pairs"):
        load_dataset(tmp_path)


def test_bad_categories_and_repeated_classes(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", TRAIN)
    (tmp_path / "categories.json").write_text('{"on": 1}')
    with pytest.raises(DataError, match=r"categories\.json: the file does not name the classes"):
        load_dataset(tmp_path)
    (tmp_path / "categories.json").write_text('["on", "off", "on"]')
    with pytest.raises(UsageError, match="a class is named twice; found 'on'"):
        load_dataset(tmp_path)


def test_parquet_without_pyarrow_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DependencyError, match="pip install pyarrow"):
        load_dataset(tmp_path / "a.parquet")


def test_damaged_parquet_and_null_cells(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="the Parquet file cannot be read"):
        load_dataset(path)
    parquet.write_table(pyarrow.table({"text": ["a", None, "c"], "label": [0, 1, 1]}), path)
    with pytest.raises(DataError, match="row 2, column 'text': the text is missing; found null"):
        load_dataset(path)


# Round trips: what csv and json write is read back equal, for every text that is not blank and can be encoded.
