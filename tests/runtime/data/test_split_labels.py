"""What is said about labels: what was changed, left out or not known, and what stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from reaugkd import LabelError
from reaugkd.runtime.data import Columns, Dataset, choose_split, label_indices, load_dataset, with_dev_split


def write(folder: Path, **splits: Sequence[object]) -> Path:
    """Write the labels of each split, with a text each; None is a row without the label."""
    for name, labels in splits.items():
        rows = [
            {"text": f"{name} {row}", **({} if label is None else {"label": label})} for row, label in enumerate(labels)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def labels(dataset: Dataset, split: str) -> list[str] | None:
    return dataset.splits[split].labels


def test_blanks_are_removed_and_counted(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, train=["on ", "off", "\ton", "on\u00a0"]))
    assert labels(dataset, "train") == ["on", "off", "on", "on"]
    assert dataset.notes == (
        f"{tmp_path / 'train.jsonl'}: blanks at the ends of labels are removed, in 3 rows (such as 'on ')",
    )


def test_near_equal_labels_stay_and_are_told_once(tmp_path: Path) -> None:
    train = ["GetWeather"] * 3 + ["GETWEATHER", "get_weather", "Play"]
    dataset = load_dataset(write(tmp_path, train=train, dev=["Play", "GETWEATHER"]))
    assert dataset.label_names == ("GETWEATHER", "GetWeather", "Play", "get_weather")
    assert dataset.notes == (
        "labels that differ only in case, blanks, punctuation or Unicode form are different classes: 'GetWeather' "
        "(3 rows), 'GETWEATHER' (1 row), 'get_weather' (1 row); write them alike if they mean the same",
    )


def test_numbers_are_one_label_in_all_spellings(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, train=["1.0", "1.0", 2], dev=[1, 2.0], test=["2"]))
    assert [labels(dataset, split) for split in ("train", "dev", "test")] == [["1", "1", "2"], ["1", "2"], ["2"]]
    assert dataset.notes == ("labels are read by their value: '1.0' as '1' (2 rows), '2.0' as '2' (1 row)",)
    both = load_dataset(write(tmp_path, train=["1.0", "1", "2"]))
    assert labels(both, "train") == ["1", "1", "2"]
    assert "to keep two spellings apart, write them as words" in both.notes[0]


def test_versions_and_codes_stay_as_they_are(tmp_path: Path) -> None:
    for train in (["1.0", "1", "1.10", "1.1"], ["007", "7", "8.0"]):
        dataset = load_dataset(write(tmp_path, train=train))
        assert labels(dataset, "train") == train


def test_numbers_with_fractions_are_told(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, train=[0.5, 1.0, 4.25]))
    assert dataset.label_names == ("0.5", "1.0", "4.25")
    assert dataset.notes == ("the labels are numbers with fractions: each of the 3 is a class of its own",)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, train=["on", None, "off", " ", "nan", "on"], test=["on", None])
    dataset = load_dataset(folder)
    assert dataset.splits["train"].rows == [1, 3, 6] and dataset.splits["train"].texts[1] == "train 2"
    assert labels(dataset, "test") == ["on"]
    assert dataset.notes == (
        f"{folder / 'train.jsonl'}: 3 of 6 rows have no label and are left out (the first is row 2)",
        f"{folder / 'test.jsonl'}: 1 of 2 rows have no label and are left out (the first is row 2)",
    )


@pytest.mark.parametrize("split", ["train", "dev"])
def test_train_and_dev_need_labels(tmp_path: Path, split: str) -> None:
    write(tmp_path, train=["on", "off"])
    (tmp_path / f"{split}.csv").write_text("text,label\na,\nb, \n")
    (tmp_path / f"{split}.jsonl").unlink(missing_ok=True)
    with pytest.raises(
        LabelError, match=rf"{split}\.csv, column 'label': no row has a label; found 0 labels in 2 rows"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "test", ["text\na\nb\n", "text,label\na,\nb,\n", "text,label\na,-1\nb,-1\n", "text,label\na,?\nb,?\n"]
)
def test_a_test_split_without_labels(tmp_path: Path, test: str) -> None:
    (tmp_path / "test.csv").write_text(test)
    dataset = load_dataset(write(tmp_path, train=["on", "off"] * 9, dev=["on", "off"]))
    assert labels(dataset, "test") is None and dataset.splits["test"].texts == ["a", "b"]
    assert len(dataset.notes) == 1 and "test.csv" in dataset.notes[0] and "not scored" in dataset.notes[0]
    assert choose_split(dataset, None)[0] == "dev"
    with pytest.raises(LabelError, match="no labels to score"):
        choose_split(dataset, "test")


@pytest.mark.parametrize("split", ["dev", "test"])
def test_unseen_labels_are_told_and_kept(tmp_path: Path, split: str) -> None:
    write(tmp_path, train=["on", "off"], **{split: ["on", "dim", "dim", "ON"]})
    dataset = load_dataset(tmp_path)
    assert dataset.label_names == ("off", "on")
    assert label_indices(dataset.splits[split], dataset.label_names, unseen=True).tolist() == [1, -1, -1, -1]
    assert dataset.notes == (
        f"{tmp_path / split}.jsonl: 3 of 4 rows have a label that train does not have, and count as wrong: "
        "'dim' (2 rows), 'ON' (1 row, nearly 'on')",
    )


def test_a_dev_split_of_other_labels_is_refused(tmp_path: Path) -> None:
    write(tmp_path, train=["on", "off"], dev=[0, 1, 1])
    with pytest.raises(
        LabelError, match=r"none of the labels is one of the classes; found '1' \(2 rows\), '0' \(1 row\)"
    ):
        load_dataset(tmp_path)


def test_a_train_label_that_the_names_of_the_source_lack_is_refused(tmp_path: Path) -> None:
    write(tmp_path, train=["on ", "off", "dim"])
    (tmp_path / "categories.json").write_text('["on", " off"]')
    with pytest.raises(LabelError, match=r"row 3, column 'label': unknown label; found 'dim'.*categories\.json"):
        load_dataset(tmp_path)
    (tmp_path / "categories.json").write_text('["on", " off", "dim"]')
    assert load_dataset(tmp_path).label_names == ("on", "off", "dim")


def test_labels_are_read_as_those_of_a_bundle(tmp_path: Path) -> None:
    write(tmp_path, train=["2.0", 1, True, "9"] * 20)
    dataset = load_dataset(tmp_path, label_names=("1.0", "2", "true"))
    assert (labels(dataset, "train") or [])[:4] == ["2", "1.0", "true", "9"]
    assert (
        "20 of 80 rows have a label that the model does not know, and count as wrong: '9' (20 rows)" in dataset.notes[1]
    )
    assert len(with_dev_split(dataset).splits["dev"]) == 8  # rows with unknown labels are held out too


@pytest.mark.parametrize(
    ("label", "found"), [(["a", "b"], r"\['a', 'b'\]"), ("['a', 'b']", r"\['a', 'b'\]"), ("[1 2]", r"\[1 2\]")]
)
def test_a_list_of_one_is_its_element_and_one_of_several_is_refused(tmp_path: Path, label: object, found: str) -> None:
    dataset = load_dataset(write(tmp_path, train=[["on"], "['off']", '["on "]', ["off"]]))
    assert labels(dataset, "train") == ["on", "off", "on", "off"]
    write(tmp_path, train=["on", label])
    with pytest.raises(LabelError, match=f"row 2, column 'label': the row has several labels; found {found}"):
        load_dataset(tmp_path)


def test_what_lies_beside_the_files_changes_nothing(tmp_path: Path) -> None:
    from reaugkd.commands.data_source import load

    (tmp_path / "train.csv").write_text("text,label\n" + "a,1.0\nb,0.0\nc,NA\n" * 9)
    expected = load(str(tmp_path), None, Columns())
    assert expected.label_names == ("0.0", "1.0", "NA")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.csv").write_text("text,label\na,b\n")
    (tmp_path / "sub-00000-of-00001.parquet").write_bytes(b"")
    for name in ("state.json", "dataset_info.json", "dataset_dict.json", "other.csv", "labels.json"):
        (tmp_path / name).write_text("{}")
    assert load(str(tmp_path), None, Columns()) == expected
    assert load(str(tmp_path / "train.csv"), None, Columns()).splits == expected.splits
