"""Groups of related rows, compared with brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reaugkd.export.recipe import Recipe
from reaugkd.export.training.splits import assign
from reaugkd.export.tuning.groups import COMMON, mean_and_error, related_inputs, related_rows
from reaugkd.runtime.data import Dataset, Split, normalise


def split_of(texts: list[str], pairs: list[str] | None = None) -> Split:
    labels = ["ab"[row % 2] for row in range(len(texts))]
    return Split(texts, pairs, labels, "made", list(range(1, len(texts) + 1)))


def groups(*texts: str) -> list[int]:
    return related_rows(split_of(list(texts))).tolist()


def test_phrases_belong_to_the_sentence_they_were_cut_from() -> None:
    assert groups("a fine film", "a bad film", "fine", "it is a fine film", "fine  film", "is a") == [0, 1, 0, 0, 0, 0]


def test_a_phrase_of_two_sentences_joins_neither_with_the_other() -> None:
    assert groups("the film is fine", "the film is bad", "the film is", "the film") == [0, 1, 0, 0]


def test_the_longest_text_is_the_owner_even_of_parts_of_a_shorter_one() -> None:
    assert groups("b c", "a b c", "c", "c d e f") == [0, 0, 2, 2]


def test_words_count_and_not_letters() -> None:
    assert groups("car", "carpet", "a car park", "car pa") == [0, 1, 0, 3]


def test_equal_texts_are_related() -> None:
    assert groups("hello", "hi", " hello ", "hi") == [0, 1, 0, 1]


def test_pairs_are_related_through_shared_texts() -> None:
    split = split_of(["p", "p", "q", "r", "s"], ["one", "two", "two", "three", "r"])
    assert related_rows(split).tolist() == [0, 0, 0, 3, 3]


def test_a_text_of_very_many_pairs_relates_nothing() -> None:
    many = COMMON + 1
    texts = [f"text {row}" for row in range(many)]
    assert len(set(related_rows(split_of(texts, ["is it spam?"] * many)).tolist())) == many
    assert len(set(related_rows(split_of(texts[:-1], ["is it spam?"] * (many - 1))).tolist())) == 1


words = st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map(" ".join)


@given(st.lists(words, min_size=1, max_size=25))
def test_against_a_search_of_all_pairs(texts: list[str]) -> None:
    """Every row's group holds a longest text of which the row is a part, found by brute force."""
    found = related_rows(split_of(texts))
    padded = [f" {normalise(text)} " for text in texts]
    for row, group in enumerate(found):
        holders = [other for other in range(len(texts)) if padded[row] in padded[other]]
        longest = max(len(texts[other].split()) for other in holders)
        owners = {other for other in holders if len(texts[other].split()) == longest}
        assert any(found[other] == group for other in owners)
        assert found[group] == group and group == int(np.flatnonzero(found == group)[0])


def test_related_rows_are_held_out_together() -> None:
    sentences = [f"w{i}a w{i}b w{i}c w{i}d" for i in range(60)]
    phrases = [" ".join(text.split()[:2]) for text in sentences]
    data = Dataset("made", {"train": split_of(sentences + phrases), "dev": split_of(["x", "y"])}, ("a", "b"))
    splits = assign(data, Recipe(), None)
    held = set(splits.heldout.texts)
    assert len(held) == 12
    assert {" ".join(text.split()[:2]) for text in held} <= held


def test_inputs_are_grouped_as_splits_are() -> None:
    texts, pairs = ["p", "p", "q", "r q"], ["one", "two", "two", "q"]
    assert related_inputs(texts).tolist() == related_rows(split_of(texts)).tolist() == [0, 0, 2, 2]
    both = list(zip(texts, pairs, strict=True))
    assert related_inputs(both).tolist() == related_rows(split_of(texts, pairs)).tolist()
    assert related_inputs([]).tolist() == []


def test_the_error_of_rows_that_go_together_by_hand() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.0])
    assert mean_and_error(values, np.arange(4)) == (0.5, 0.25)  # sqrt(4 * 0.25) / 4
    mean, error = mean_and_error(values, np.array([7, 7, 9, 9]))
    assert mean == 0.5 and abs(error - np.sqrt(2) / 4) < 1e-12  # two groups, each off by 1
