"""Names of labels: spellings of one value are one name, and other names stay apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd.runtime.labels import LabelNames, near_equal


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["1.0", "2", " 3.00 ", "-0"], {"1", "2", "3", "0"}),
        (["True", "FALSE", "true"], {"true", "false"}),
        (["1.0", "1", "1.1", "1.10"], {"1.0", "1", "1.1", "1.10"}),  # versions
        (["01", "1", "2.0"], {"01", "1", "2.0"}),  # codes
        (["TRUE", "FALSE", "HALF-TRUE"], {"TRUE", "FALSE", "HALF-TRUE"}),
        (["True", "1"], {"True", "1"}),
        ([" a ", "a\u00a0", "A", "a b"], {"a", "A", "a b"}),
        (["1e3", "1"], {"1e3", "1"}),
    ],
)
def test_names_of_a_column(texts: list[str], names: set[str]) -> None:
    assert LabelNames.of_texts(texts).names == names


@pytest.mark.parametrize(
    ("known", "text", "name"),
    [
        (["0", "1"], "1.0", "1"),
        (["0", "1"], "7.0", "7"),  # unknown, in the spelling of the others
        (["0.0", "1.0"], "1", "1.0"),  # a bundle of an earlier version
        (["false", "true"], "TRUE", "true"),
        (["True", "False", "unclear"], "true", "True"),
        (["1", "1.0", "x"], "1.0", "1.0"),
        (["1", "1.0", "x"], "1.00", "1.00"),  # one of two: not guessed
        (["on", "off"], " on\t", "on"),
        (["on", "off"], "On", "On"),
        (["on ", "off"], "on", "on "),  # a bundle whose label has a blank
        (["on ", "on"], "on ", "on "),  # a bundle that has both
        (["a"], "1.0", "1.0"),
    ],
)
def test_a_text_is_read_as_a_known_name(known: list[str], text: str, name: str) -> None:
    assert LabelNames(known).read(text) == name


@settings(max_examples=100)
@given(st.lists(st.text(st.sampled_from("01.-ae TruFls"), max_size=6), min_size=1), st.randoms())
def test_every_text_of_a_column_is_read_as_a_name_of_it(texts: list[str], random: object) -> None:
    known = LabelNames.of_texts(texts)
    assert {known.read(text) for text in texts} == known.names
    assert all(known.read(name) == name for name in known.names)
    random.shuffle(texts)  # type: ignore[attr-defined]
    assert LabelNames.of_texts(texts).names == known.names


@pytest.mark.parametrize(
    "names",
    [
        ["GetWeather", "get_weather", "get weather", "Get-Weather.", "GETWEATHER"],
        ["caf\u00e9", "cafe\u0301"],
        ["\ufb01ne", "fine"],
        ["a\u200bb", "ab"],
        ["1", "1.0"],
        ["true", "True"],
        ["label 1", "label_1", "label1"],
    ],
)
def test_near_equal_names(names: list[str]) -> None:
    assert near_equal({name: 1 for name in [*names, "other"]}) == [sorted(names)]


@pytest.mark.parametrize("names", [["-1", "1"], ["1.1", "11", "1.10"], ["C", "C++", "C#"], ["a", "ab"], ["?", "!"]])
def test_names_that_are_not_near_equal(names: list[str]) -> None:
    assert near_equal(dict.fromkeys(names, 1)) == []


def test_the_name_of_most_rows_comes_first() -> None:
    counts = {"a": 1, "A": 5, "b": 2, "B_": 9, "B": 2, "c": 100}
    assert near_equal(counts) == [["B_", "B", "b"], ["A", "a"]]
