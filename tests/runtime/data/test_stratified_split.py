"""Stratified splits, held-out dev splits and duplicates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd import DataError, LabelError, UsageError
from reaugkd.runtime.data import (
    Dataset,
    Split,
    choose_split,
    drop_duplicates_of,
    label_indices,
    normalise,
    stratified_split,
    with_dev_split,
)

LABELS = st.lists(st.integers(-3, 6), min_size=1, max_size=80)


def split_of(texts: list[str], labels: list[str] | None = None, pairs: list[str] | None = None) -> Split:
    return Split(texts, pairs, labels, "rows.csv", list(range(2, len(texts) + 2)))


@settings(max_examples=200, deadline=None)
@given(labels=LABELS, data=st.data())
def test_stratified_split_properties(labels: list[int], data: st.DataObject) -> None:
    sizes = {label: labels.count(label) for label in labels}
    spare = sum(size - 1 for size in sizes.values())
    count = data.draw(st.integers(0, spare))
    seed = data.draw(st.integers(0, 3))
    rest, held = stratified_split(labels, count=count, seed=seed)
    assert len(held) == count
    assert sorted([*rest, *held]) == list(range(len(labels)))
    assert (np.diff(rest) > 0).all() and (np.diff(held) > 0).all()
    taken = {label: sum(labels[row] == label for row in held) for label in sizes}
    assert all(taken[label] < size for label, size in sizes.items())
    exact = {label: count * size / len(labels) for label, size in sizes.items()}
    if all(quota <= sizes[label] - 1 for label, quota in exact.items()):
        assert all(abs(taken[label] - exact[label]) < 1 for label in sizes)
    again = stratified_split(labels, count=count, seed=seed)
    assert again[0].tolist() == rest.tolist() and again[1].tolist() == held.tolist()


def test_the_largest_remainders_get_the_rows_left_over() -> None:
    # Exact quotas of 5 among 10, 6, 4 of 20 are 2.5, 1.5 and 1.0: the first tie wins the odd row.
    labels = [0] * 10 + [1] * 6 + [2] * 4
    _, held = stratified_split(labels, 0.25)
    assert np.bincount(np.asarray(labels)[held]).tolist() == [3, 1, 1]


def test_a_class_of_one_is_never_held_out_and_passes_its_part_on() -> None:
    labels = [0, 1, 2, 3, 3, 3]
    _, held = stratified_split(labels, count=2)
    assert [labels[row] for row in held] == [3, 3]


def test_the_seed_decides_and_numpy_pcg64_draws() -> None:
    labels = [0] * 50
    expected = np.sort(np.random.Generator(np.random.PCG64(7)).permutation(50)[:10])
    assert stratified_split(labels, 0.2, seed=7)[1].tolist() == expected.tolist()
    assert stratified_split(labels, 0.2, seed=8)[1].tolist() != expected.tolist()


def test_shares_and_counts_out_of_range() -> None:
    for arguments in ({"share": 1.0}, {"share": -0.1}, {"count": -1}, {}, {"share": 0.5, "count": 1}):
        with pytest.raises(UsageError):
            stratified_split([0, 0, 1, 1], **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="found 3 of 4 rows in 2 classes; expected at most 2"):
        stratified_split([0, 0, 1, 1], count=3)
    with pytest.raises(ValueError, match="integers"):
        stratified_split([[0.5]], count=0)
    rest, held = stratified_split([], share=0.5)
    assert len(rest) == len(held) == 0


def test_a_dev_split_is_held_out_the_same_way_every_time() -> None:
    labels = ["a", "b"] * 50
    dataset = Dataset("toy", {"train": split_of([f"text {n}" for n in range(100)], labels)}, ("a", "b"))
    first, second = with_dev_split(dataset), with_dev_split(dataset)
    assert first.splits == second.splits
    assert (len(first.splits["train"]), len(first.splits["dev"])) == (90, 10)
    assert sorted(first.splits["dev"].labels or []) == ["a"] * 5 + ["b"] * 5
    assert with_dev_split(first) is first
    assert choose_split(dataset, None) == ("dev", first.splits["dev"])
    with pytest.raises(UsageError, match="no split 'test'"):
        choose_split(dataset, "test")


def test_too_few_rows_to_hold_out() -> None:
    dataset = Dataset("toy", {"train": split_of(["x", "y"], ["a", "b"])}, ("a", "b"))
    with pytest.raises(DataError, match="too few rows to hold any out"):
        with_dev_split(dataset)


def test_an_unlabelled_test_split_is_not_scored() -> None:
    splits = {"dev": split_of(["x"], ["a"]), "test": split_of(["y"])}
    dataset = Dataset("toy", splits, ("a", "b"))
    assert choose_split(dataset, None)[0] == "dev"
    with pytest.raises(LabelError, match="no labels to score against"):
        choose_split(dataset, "test")


def test_take_and_inputs_keep_rows_together() -> None:
    split = split_of(["a", "b", "c"], ["x", "y", "z"], ["1", "2", "3"])
    taken = split.take(np.array([2, 0]))
    assert taken.inputs() == [("c", "3"), ("a", "1")]
    assert (taken.labels, taken.rows) == (["z", "x"], [4, 2])
    assert split_of(["a"]).inputs() == ["a"]
    with pytest.raises(ValueError, match="3 texts, but 1 labels"):
        split_of(["a", "b", "c"], ["x"])


def test_label_indices_name_the_row() -> None:
    split = split_of(["a", "b"], ["x", "q"])
    with pytest.raises(LabelError, match="row 3: unknown label; found 'q'; expected one of 'x', 'y'"):
        label_indices(split, ("x", "y"))
    with pytest.raises(LabelError, match="the rows have no labels"):
        label_indices(split_of(["a"]), ("x", "y"))
    assert label_indices(split, ("q", "x")).dtype == np.int64


def test_duplicates_are_equal_texts_up_to_white_space() -> None:
    train = split_of(["Hello  there", "hello there", "other", "Hello there", "other"])
    kept = drop_duplicates_of(train, [split_of(["unseen"]), split_of([" Hello there\n"])])
    assert kept.tolist() == [1, 2, 4]
    assert normalise(" a\t b\u00a0c \n") == "a b c"


def test_duplicate_pairs_need_both_texts() -> None:
    train = split_of(["a", "a", "b"], pairs=["x", "y", "x"])
    assert drop_duplicates_of(train, [split_of(["a"], pairs=["x "])]).tolist() == [1, 2]
    assert drop_duplicates_of(train, []).tolist() == [0, 1, 2]
