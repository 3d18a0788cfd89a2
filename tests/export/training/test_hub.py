"""Hugging Face data sets, from folders: no test goes to the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from support.command_line import ok

from reaugkd import ColumnError, DataError
from reaugkd.commands.data_source import load
from reaugkd.export.training.hub import load_hub_dataset
from reaugkd.runtime.data import Columns, label_indices

# Class names in an order of their own, and one that no row has.
NAMES = ["sad", "glad", "mad", "none"]
FEATURES = datasets.Features(
    {
        "idx": datasets.Value("int32"),
        "genre": datasets.ClassLabel(names=["news", "fiction"]),
        "sentence": datasets.Value("string"),
        "label": datasets.ClassLabel(names=NAMES),
    }
)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(count: int, label: int | None = None, features: Any = FEATURES) -> datasets.Dataset:
    columns = {
        "idx": list(range(count)),
        "genre": [row % 2 for row in range(count)],
        "sentence": [f"noon {row}" for row in range(count)],
        "label": [row % 3 if label is None else label for row in range(count)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def splits() -> datasets.DatasetDict:
    return datasets.DatasetDict(train=rows(30), validation=rows(9), test=rows(6, label=-1))


def as_saved(splits: datasets.DatasetDict, folder: Path) -> Path:
    splits.save_to_disk(folder)
    return folder


def as_repository(splits: datasets.DatasetDict, folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.mark.parametrize("write", [as_saved, as_repository])
def test_a_folder(splits: datasets.DatasetDict, tmp_path: Path, write: Any) -> None:
    found = load(str(write(splits, tmp_path / "set")), None, Columns())
    assert found.label_names == tuple(NAMES)
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 30, "dev": 9, "test": 6}
    train, test = found.splits["train"], found.splits["test"]
    assert train.texts[:2] == ["noon 0", "noon 1"] and train.pairs is None
    assert (train.labels or [])[:4] == ["sad", "glad", "mad", "sad"]
    assert label_indices(train, found.label_names).tolist() == [row % 3 for row in range(30)]
    assert test.labels is None  # -1 stands for no label
    assert train.source.endswith(("[train]", "train-00000-of-00001.parquet")) and train.rows[0] == 1


def test_one_saved_split_is_train(tmp_path: Path) -> None:
    rows(12).save_to_disk(tmp_path / "set")
    found = load(str(tmp_path / "set"), None, Columns())
    assert list(found.splits) == ["train"] and len(found.splits["train"]) == 12


def test_the_names_are_those_of_the_chosen_label(splits: datasets.DatasetDict, tmp_path: Path) -> None:
    found = load_hub_dataset(str(as_saved(splits, tmp_path / "set")), Columns(label="genre"))
    assert found.label_names == ("news", "fiction")
    assert (found.splits["test"].labels or [])[:2] == ["news", "fiction"]


def test_plain_columns_are_taken_as_they_are(tmp_path: Path) -> None:
    columns = {"question1": ["a", "b", "c"], "question2": ["d", "e", "f"], "is_duplicate": [1, 0, 1]}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    found = load_hub_dataset(str(tmp_path / "set"), Columns())
    assert found.splits["train"].inputs() == [("a", "d"), ("b", "e"), ("c", "f")]
    assert found.splits["train"].labels == ["1", "0", "1"] and found.label_names == ("0", "1")


def test_the_names_of_a_bundle_are_checked(splits: datasets.DatasetDict, tmp_path: Path) -> None:
    folder = str(as_saved(splits, tmp_path / "set"))
    swapped = ("mad", "glad", "sad")
    assert load_hub_dataset(folder, Columns(), label_names=swapped).label_names == swapped
    fewer = load_hub_dataset(folder, Columns(), label_names=("sad", "glad"))
    assert fewer.label_names == ("sad", "glad")
    assert any("[train]: 10 of 30 rows" in note and "'mad' (10 rows)" in note for note in fewer.notes)


def test_a_label_of_minus_one_is_none(tmp_path: Path) -> None:
    columns = {"sentence": ["a", "b", "c"], "label": [0, -1, 2], "genre": [0, 0, 0], "idx": [1, 2, 3]}
    datasets.Dataset.from_dict(columns, features=FEATURES).save_to_disk(tmp_path / "set")
    found = load_hub_dataset(str(tmp_path / "set"), Columns())
    assert found.splits["train"].labels == ["sad", "mad"] and found.splits["train"].rows == [1, 3]
    assert "1 of 3 rows have no label" in found.notes[0]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    plain = {"text": ["a", None, "c"], "label": ["x", "y", "x"]}
    datasets.Dataset.from_dict(plain).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"\[train\], row 2, column 'text': the text is missing"):
        load_hub_dataset(str(tmp_path / "set"), Columns())
    with pytest.raises(ColumnError, match="nosuch"):
        load_hub_dataset(str(tmp_path / "set"), Columns(text="nosuch"))


@pytest.mark.parametrize("label", [0, -1])
def test_one_class_only(tmp_path: Path, label: int) -> None:
    """Also where the features name more."""
    rows(9, label=label).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="only one class" if label == 0 else "label"):
        load_hub_dataset(str(tmp_path / "set"), Columns())


def test_no_usable_split(tmp_path: Path) -> None:
    datasets.DatasetDict(extra=rows(9)).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="no usable split; found extra; expected train"):
        load_hub_dataset(str(tmp_path / "set"), Columns())


@pytest.mark.parametrize("damage", ["empty", "no JSON", "no rows"])
def test_a_damaged_folder(splits: datasets.DatasetDict, tmp_path: Path, damage: str) -> None:
    folder = as_saved(splits, tmp_path / "set")
    if damage == "no rows":
        next((folder / "train").glob("*.arrow")).write_bytes(b"nonsense")
    else:
        (folder / "dataset_dict.json").write_text("" if damage == "empty" else "{")
    with pytest.raises(DataError, match="the data set cannot be loaded") as caught:
        load_hub_dataset(str(folder), Columns())
    assert caught.value.path == str(folder) and "\n" not in str(caught.value)


def test_an_id_without_a_network_fails_at_once() -> None:
    with pytest.raises(DataError, match="nosuch-org/nosuch: the data set cannot be loaded") as caught:
        load_hub_dataset("nosuch-org/nosuch", Columns())
    assert "without a network" in str(caught.value)


def test_evaluating_a_saved_folder(tmp_path: Path, edge_bundle: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["c", "b", "a"])}
    )
    columns = {"text": ["noon", "alarm", "call"], "label": [0, 1, 2]}
    datasets.DatasetDict(test=datasets.Dataset.from_dict(columns, features=features)).save_to_disk(tmp_path / "set")
    done = ok("eval", edge_bundle, "--data", tmp_path / "set", "--json", "-")
    assert json.loads(done.out)["n"] == 3
