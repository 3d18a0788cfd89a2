"""The real data sets, if they exist: row counts as in their README."""

from __future__ import annotations

from pathlib import Path

import pytest

from reaugkd.runtime.data import load_dataset

pytestmark = pytest.mark.shared

EXPECTED = {
    "SST-2": ({"train": 67_349, "dev": 872}, 2, False),
    "MRPC": ({"train": 3_668, "dev": 408, "test": 1_725}, 2, True),
    "RTE": ({"train": 2_490, "dev": 277}, 2, True),
    "CoLA": ({"train": 8_551, "dev": 1_043}, 2, False),
    "banking77": ({"train": 10_003, "test": 3_080}, 77, False),
    "clinc150": ({"train": 15_000, "dev": 3_000, "test": 4_500}, 150, False),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("named", [True, False])
def test_row_counts(shared: Path, name: str, named: bool) -> None:
    dataset = load_dataset(shared / "data" / name, task=name if named else None)
    counts, classes, pairs = EXPECTED[name]
    assert {key: len(split) for key, split in dataset.splits.items()} == counts
    assert len(dataset.label_names) == classes
    assert dataset.text_pair is pairs
    assert dataset.name == name.lower().replace("-", "")


def test_clinc_with_out_of_scope_rows(shared: Path) -> None:
    dataset = load_dataset(shared / "data" / "clinc150", task="clinc150_oos")
    assert {key: len(split) for key, split in dataset.splits.items()} == {"train": 15_100, "dev": 3_100, "test": 5_500}
    assert len(dataset.label_names) == 151
    assert (dataset.splits["test"].labels or []).count("oos") == 1_000


def test_labels_and_texts_are_as_in_the_files(shared: Path) -> None:
    data = shared / "data"
    assert load_dataset(data / "RTE").label_names == ("entailment", "not_entailment")
    sst2 = load_dataset(data / "SST-2")
    assert sst2.label_names == ("0", "1")
    assert sst2.splits["train"].texts[0] == "hide new secretions from the parental units "
    mrpc = load_dataset(data / "MRPC")
    assert mrpc.splits["test"].labels is None
    assert '"' in mrpc.splits["train"].texts[0]
    cola = load_dataset(data / "CoLA").splits["train"].labels or []
    assert 0.69 < cola.count("1") / len(cola) < 0.71
    banking = load_dataset(data / "banking77")
    assert banking.label_names[:2] == ("card_arrival", "card_linking")
    assert any("\n" in text for text in banking.splits["train"].texts)


def test_labels_with_blanks_and_case(shared: Path) -> None:
    dataset = load_dataset(shared / "cases" / "labels_with_blanks_and_case" / "train.csv")
    assert all(name == name.strip() for name in dataset.label_names)
    assert len({name.casefold() for name in dataset.label_names}) == 7
    assert "in 7 rows" in dataset.notes[0] and "'GetWeather' (13 rows), 'GETWEATHER' (3 rows)" in dataset.notes[1]


def test_labels_written_otherwise_in_each_split(shared: Path) -> None:
    dataset = load_dataset(shared / "cases" / "labels_other_by_format")
    assert dataset.label_names == ("0", "1", "2")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 60, "dev": 60}
    assert dataset.splits["train"].labels == dataset.splits["dev"].labels
