from __future__ import annotations

import pytest

from reaugkd import DataError, LabelError, UsageError
from reaugkd.runtime.data import Dataset, Split, choose_split, hold_out, is_held_out, unlabelled_split, with_dev_split

LABELS = ("a", "b", "c")


def split(rows: int, source: str = "train.csv", labelled: bool = True, pairs: bool = False) -> Split:
    texts = [f"{source} {row}" for row in range(rows)]
    labels = [LABELS[row % 3] for row in range(rows)] if labelled else None
    return Split(texts, texts if pairs else None, labels, source, list(range(2, rows + 2)))


def dataset(**splits: Split) -> Dataset:
    return Dataset("data", splits, LABELS)


def test_a_tenth_is_held_out_out_class_by_class_and_always_the_same() -> None:
    train = split(90)
    held_out = with_dev_split(dataset(train=train))
    assert len(held_out.splits["dev"]) == 9 and len(held_out.splits["train"]) == 81
    assert sorted(held_out.splits["dev"].labels or ()) == sorted("abc" * 3)
    assert set(held_out.splits["dev"].texts) | set(held_out.splits["train"].texts) == set(train.texts)
    assert with_dev_split(dataset(train=train)) == held_out
    assert with_dev_split(held_out) is held_out


def test_a_class_keeps_a_row() -> None:
    rest, held = hold_out(split(6), LABELS, count=100, seed=0)
    assert len(rest) == len(held) == 3
    with pytest.raises(DataError, match=r"too few rows to hold any out.*3 rows of 3 classes") as caught:
        hold_out(split(3), LABELS, count=1, seed=0)
    assert caught.value.path == "train.csv"


@pytest.mark.parametrize(
    ("splits", "name", "expected", "rows"),
    [
        ({"train": 30, "dev": 5, "test": 4}, None, "test", 4),
        ({"train": 30, "dev": 5, "test": -4}, None, "dev", 5),
        ({"train": 30, "test": -4}, None, "dev", 3),
        ({"train": 30}, None, "dev", 3),
        ({"train": 30}, "train", "train", 27),
        ({"train": 30, "dev": 5}, "train", "train", 30),
        ({"train": 30}, "all", "all", 30),
        ({"train": 3}, "train", "train", 3),
        ({"train": 30, "dev": 5, "test": 4}, "all", "all", 39),
        ({"train": 30, "test": -4}, "all", "all", 30),
        ({"test": 4}, None, "test", 4),
    ],
)
def test_the_split_to_score(splits: dict[str, int], name: str | None, expected: str, rows: int) -> None:
    """A negative count stands for rows without labels."""
    data = dataset(**{key: split(abs(count), f"{key}.csv", labelled=count > 0) for key, count in splits.items()})
    found, chosen = choose_split(data, name)
    assert (found, len(chosen)) == (expected, rows)
    assert chosen.labels is not None
    assert is_held_out(data, found) == (found == "dev" and "dev" not in splits)


def test_all_rows_keep_their_places() -> None:
    data = dataset(train=split(6, "train.csv", pairs=True), test=split(3, "test.csv", pairs=True))
    chosen = choose_split(data, "all")[1]
    assert chosen.source == "train.csv, test.csv"
    assert chosen.rows == [*range(2, 8), *range(2, 5)]
    assert chosen.texts == chosen.pairs == [*data.splits["train"].texts, *data.splits["test"].texts]
    assert chosen.labels == list("abcabcabc")


def test_splits_that_cannot_be_scored() -> None:
    train = split(30)
    with pytest.raises(UsageError, match="no split 'test'; expected one of train, all"):
        choose_split(dataset(train=train), "test")
    with pytest.raises(LabelError, match=r"test\.csv: the split has no labels"):
        choose_split(dataset(train=train, test=split(4, "test.csv", labelled=False)), "test")
    with pytest.raises(LabelError, match="no labels"):
        choose_split(dataset(test=split(4, "test.csv", labelled=False)), "all")
    with pytest.raises(LabelError, match="no labels"):
        choose_split(dataset(train=split(30, labelled=False)), None)
    with pytest.raises(DataError, match=r"too few rows.*--split all"):
        choose_split(dataset(train=split(3)), None)


def test_texts_without_labels() -> None:
    train, dev, test = split(6), split(3, "dev.csv"), split(3, "test.csv", labelled=False)
    assert unlabelled_split(dataset(train=train, dev=dev, test=test)) is test
    assert unlabelled_split(dataset(train=train, dev=dev)) is dev
    assert unlabelled_split(dataset(train=train)) is train
