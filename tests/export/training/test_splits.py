from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_models as tinymodels
from support.tiny_models import LABELS

from reaugkd.errors import DataError, LabelError
from reaugkd.export.recipe import Recipe
from reaugkd.export.training.splits import ENOUGH_GOLD, RunSplits, assign
from reaugkd.runtime.data import Dataset, Split, normalise

RECIPE = Recipe(heldout_share=0.2)


def split_of(texts: list[str], labels: list[str] | None = None, pairs: list[str] | None = None) -> Split:
    labels = labels if labels is not None else [LABELS[row % 3] for row in range(len(texts))]
    return Split(texts, pairs, labels, "made", list(range(1, len(texts) + 1)))


def numbered(rows: int, name: str = "row") -> Split:
    return split_of([f"{name} {number}" for number in range(rows)])


def dataset_of(**splits: Split) -> Dataset:
    return Dataset("made", splits, LABELS)


def keys(split: Split) -> set[tuple[str, ...]]:
    return {tuple(map(normalise, (item,) if isinstance(item, str) else item)) for item in split.inputs()}


def test_every_row_is_in_one_split() -> None:
    source = dataset_of(train=numbered(200), test=numbered(50, "test"))
    splits = assign(source, RECIPE, None)
    assert list(splits.scored) == ["test", "dev"]
    assert (len(splits.train), len(splits.heldout), len(splits.scored["dev"])) == (144, 36, 20)
    parts = [*splits.train.texts, *splits.heldout.texts, *splits.scored["dev"].texts]
    assert sorted(parts) == sorted(source.splits["train"].texts)
    assert splits.scored["test"] == source.splits["test"]
    assert splits.label_names == LABELS and splits.name == "made"
    # A row keeps its label and its number in the source.
    of = dict(zip(source.splits["train"].texts, source.splits["train"].labels or [], strict=True))
    for split in (splits.train, splits.heldout, splits.scored["dev"]):
        assert split.labels == [of[text] for text in split.texts]
        assert [int(text.split()[1]) + 1 for text in split.texts] == split.rows


def test_held_out_rows_have_the_classes_in_proportion() -> None:
    labels = ["alarm"] * 60 + ["music"] * 30 + ["weather"] * 30
    splits = assign(dataset_of(train=split_of([f"row {n}" for n in range(120)], labels)), RECIPE, None)
    held, dev = (Counter(split.labels) for split in (splits.heldout, splits.scored["dev"]))
    assert dev == {"alarm": 6, "music": 3, "weather": 3}
    assert all(
        abs(held[name] - 22 * share) <= 1 for name, share in (("alarm", 0.5), ("music", 0.25), ("weather", 0.25))
    )


texts = st.text("ab ", min_size=1, max_size=3).filter(str.strip)


@given(st.lists(texts, min_size=30, max_size=60), st.lists(texts, max_size=6), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_no_row_of_train_is_in_another_part(train: list[str], test: list[str], with_dev: bool, pairs: bool) -> None:
    """Texts of so few letters repeat themselves in every split, with all kinds of white space."""

    def make(rows: list[str]) -> Split:
        return split_of(rows, pairs=rows[::-1] if pairs else None)

    parts = {"train": make(train), "test": make(test), **({"dev": make(test[:3])} if with_dev else {})}
    try:
        splits = assign(dataset_of(**parts), RECIPE, None)
    except DataError as error:
        known = ("fewer than two classes", "every held-out row repeats", "too few rows")
        assert any(message in str(error) for message in known)
        return
    others = [splits.heldout, *splits.scored.values()]
    scored = set().union(*map(keys, splits.scored.values()))
    assert not keys(splits.train) & set().union(*map(keys, others))
    assert not keys(splits.heldout) & scored
    assert len(splits.heldout) > 0
    # Nothing else was dropped: rows of train that no other part repeats are all there.
    rest = keys(make(train)) - set().union(*map(keys, others))
    assert keys(splits.train) == rest


def test_repeats_within_train_stay_and_those_of_others_go() -> None:
    train = numbered(60)
    train = split_of([*train.texts, "row  1", " test 1 ", "again", "again"], None)
    splits = assign(dataset_of(train=train, dev=numbered(3, "dev"), test=numbered(3, "test")), RECIPE, None)
    kept = Counter(map(normalise, splits.train.texts))
    assert kept["test 1"] == 0
    held = {normalise(text) for split in (splits.heldout, splits.scored["dev"]) for text in split.texts}
    for text, times in (("again", 2), ("row 1", 2), ("row 2", 1)):
        assert kept[text] == (0 if text in held else times)
    assert kept["again"] == 2


def test_the_given_dev_split_is_left_alone() -> None:
    source = dataset_of(train=numbered(100), dev=numbered(10, "dev"))
    splits = assign(source, RECIPE, None)
    assert splits.scored == {"dev": source.splits["dev"]}
    assert len(splits.train) + len(splits.heldout) == 100


@pytest.mark.parametrize("limit", [30, 60, 150, 10_000, None])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_dev_split_depends_on_neither_limit_nor_seed(limit: int | None, seed: int) -> None:
    source = dataset_of(train=numbered(300))
    expected = assign(source, RECIPE, None).scored["dev"]
    splits = assign(source, replace(RECIPE, seed=seed), limit)
    assert splits.scored["dev"] == expected and len(expected) == 30
    assert not keys(splits.train) & keys(expected) and not keys(splits.heldout) & keys(expected)


def test_the_seed_does_not_touch_the_rows() -> None:
    source = dataset_of(train=numbered(300))
    assert assign(source, replace(RECIPE, seed=1), 90) == assign(source, replace(RECIPE, seed=2), 90)


@pytest.mark.parametrize("limit", [30, 60, 90])
def test_limit_is_of_train_rows_stratified(limit: int) -> None:
    splits = assign(dataset_of(train=numbered(300)), RECIPE, limit)
    rows = [*(splits.train.labels or []), *(splits.heldout.labels or [])]
    assert len(rows) == limit
    assert set(Counter(rows).values()) == {limit // 3}


def test_a_limit_beyond_the_rows_takes_all() -> None:
    source = dataset_of(train=numbered(100))
    assert assign(source, RECIPE, 90) == assign(source, RECIPE, None) == assign(source, RECIPE, 91)


def test_heldout_max() -> None:
    splits = assign(dataset_of(train=numbered(300)), replace(RECIPE, heldout_max=7), None)
    assert len(splits.heldout) == 7 and len(splits.train) == 263


def no_rows() -> Split:
    return split_of([])


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "no train split"),
        (no_rows(), "too few rows"),
        (numbered(1), "too few rows"),
        (numbered(3), "too few rows"),
        (split_of([f"row {n}" for n in range(40)], ["alarm"] * 40), "fewer than two classes"),
        (split_of(["the same"] * 40), "too few rows"),
    ],
)
def test_too_few_rows_are_refused(train: Split | None, message: str) -> None:
    splits = {"train": train} if train is not None else {"test": numbered(30)}
    with pytest.raises(DataError, match=message):
        assign(dataset_of(**splits), RECIPE, None)


def test_a_limit_that_is_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="a limit of 1 rows; expected more than the 1"):
        assign(dataset_of(train=numbered(300)), RECIPE, 1)


@pytest.mark.parametrize("limit", [30, 90, 200, 268])
def test_rows_held_out_with_a_limit_are_held_out_without_it(limit: int) -> None:
    source = dataset_of(train=numbered(300))
    limited, full = assign(source, RECIPE, limit), assign(source, RECIPE, None)
    assert keys(limited.heldout) <= keys(full.heldout)
    parts = [keys(limited.train), keys(limited.heldout), keys(limited.beyond)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 270


@pytest.mark.parametrize("limit", [60, 100, 200, 400])
def test_a_limit_of_many_classes_leaves_train_its_share(limit: int) -> None:
    labels = [f"label {n % 50}" for n in range(600)]
    names = tuple(sorted(set(labels)))
    train = split_of([f"row {n}" for n in range(600)], labels)
    source = Dataset("made", {"train": train, "dev": numbered(3, "dev")}, names)
    splits = assign(source, RECIPE, limit)
    assert (len(splits.heldout), len(splits.train)) == (limit // 5, limit - limit // 5)
    assert len(set(splits.heldout.labels or ())) == min(50, len(splits.heldout))
    assert len(set(splits.train.labels or ())) == min(50, len(splits.train))


@pytest.mark.parametrize("limit", [40, 100, 400, 900])
def test_a_limits_groups_are_small_for_its_own_number(limit: int) -> None:
    """Sentences of which some have many phrases and most have none."""
    long = [[f"w{n}x{word}" for word in range(24)] for n in range(20)]
    texts = [" ".join(words[start:]) for words in long for start in range(len(words))]
    texts += [f"alone{n}" for n in range(600)]
    source = dataset_of(train=split_of(texts), dev=numbered(9, "dev"))
    splits = assign(source, RECIPE, limit)
    wanted = limit // 5
    sizes = Counter(text.split()[-1].partition("x")[0] for text in splits.heldout.texts)
    assert max(sizes.values()) <= max(1, wanted // 4)
    assert 0.6 * wanted <= len(splits.heldout) <= wanted


def test_related_rows_of_a_limit_are_held_out_together() -> None:
    words = [f"alpha{n} beta{n} gamma{n}" for n in range(80)]
    texts = [text for word in words for text in (word, word.rsplit(" ", 1)[0], word.split(" ")[0])]
    source = dataset_of(train=split_of(texts, [LABELS[n // 3 % 3] for n in range(240)]), dev=numbered(9, "dev"))
    splits = assign(source, RECIPE, 120)
    held = {text.split()[0] for text, *_ in keys(splits.heldout)}
    assert held and len(splits.heldout) == 3 * len(held)
    assert not held & {text.split()[0] for text, *_ in keys(splits.train) | keys(splits.beyond)}


def test_train_rows_without_labels_are_refused() -> None:
    unlabelled = Split([f"row {n}" for n in range(40)], None, None, "made", list(range(40)))
    with pytest.raises(LabelError, match="no labels"):
        assign(dataset_of(train=unlabelled), RECIPE, None)


def test_pairs_are_the_same_only_if_both_texts_are() -> None:
    train = split_of([f"row {n}" for n in range(40)], pairs=["x"] * 40)
    test = split_of(["row 0", "row 1"], pairs=["x", "y"])
    splits: RunSplits = assign(dataset_of(train=train, dev=test), RECIPE, None)
    left = keys(splits.train) | keys(splits.heldout)
    assert ("row 1", "x") in left
    assert ("row 0", "x") not in keys(splits.train)


def test_the_tiny_rows_have_the_expected_splits() -> None:
    splits = assign(tinymodels.make_dataset(), tinymodels.tiny_recipe(), None)
    assert set(splits.train.labels or []) == set(LABELS)
    assert len(splits.train) > 150 and len(splits.heldout) == 45


@pytest.mark.parametrize("known", [0, 60, 120])
def test_rows_with_a_gold_label_are_held_out_if_there_are_enough(known: int) -> None:
    """The others have a teacher's label; no dev rows are split off. Of 60 rows in 20 classes, 40 can be held out."""
    names = tuple(f"class{number:02}" for number in range(20))
    texts = [f"text{number} of{number}" for number in range(600)]
    labels = [names[number % 20] for number in range(600)]
    dataset = Dataset("file", {"train": Split(texts, None, labels, "file", list(range(1, 601)))}, names)
    has_gold = np.arange(600) < known
    splits = assign(dataset, Recipe(), None, has_gold)
    assert len(splits.train) + len(splits.heldout) == 600 and splits.scored == {}
    gold = has_gold[np.array(splits.heldout.rows) - 1]
    assert len(gold) == 60
    assert gold.all() == (known - len(names) >= ENOUGH_GOLD)
