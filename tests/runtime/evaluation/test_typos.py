"""Typing errors: the allowed changes of any text, and their frequency."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaugkd.errors import UsageError
from reaugkd.runtime.evaluation.typos import KEYBOARD, MIN_LETTERS, RATE, add_typos
from reaugkd.runtime.inference.text.inputs import MAX_TEXT_CHARS

# Any text, and texts that have long words, doubled letters and capitals far more often than those.
TEXTS = st.text(max_size=80) | st.lists(st.text("aAbeElost ß漢1-'", max_size=9), max_size=9).map(" ".join)
WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ", min_size=MIN_LETTERS, max_size=12)


def long_words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_]+", text) if len(word) >= MIN_LETTERS and word.isalpha()]


def one(text: str, seed: int = 0, rate: float = RATE) -> str:
    return add_typos([text], seed, rate)[0]


def slips(word: str) -> dict[str, set[str]]:
    """Return every form of the word with one error after its first letter, by the kind of error."""
    at = range(1, len(word))
    found = {
        "drop": {word[:i] + word[i + 1 :] for i in at},
        "double": {word[:i] + word[i] + word[i:] for i in at},
        "swap": {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in at[:-1]},
        "neighbour": {word[:i] + key + word[i + 1 :] for i in at for key in touching(word[i])},
    }
    return {kind: forms - {word} for kind, forms in found.items()}


def touching(letter: str) -> set[str]:
    """Return the letters of adjacent keys, by the distance of the keys' centres."""
    places = {key: (x + y / 2, y) for y, row in enumerate(KEYBOARD) for x, key in enumerate(row)}
    if not letter.isascii() or letter.lower() not in places:
        return set()
    x, y = places[letter.lower()]
    near = {key for key, (a, b) in places.items() if key != letter.lower() and (a - x) ** 2 + (b - y) ** 2 < 1.5}
    return {key.upper() for key in near} if letter.isupper() else near


@given(TEXTS, st.integers(0, 5))
def test_a_text_with_a_long_word_changes_and_no_other(text: str, seed: int) -> None:
    changed = one(text, seed)
    assert (changed != text) == bool(long_words(text))
    assert bool(changed.strip()) == bool(text.strip())


@given(TEXTS, st.integers(0, 5))
def test_only_letters_of_long_words_change(text: str, seed: int) -> None:
    def frame(text: str) -> str:
        """Return everything except letters, and the positions of the letters."""
        return re.sub(r"[^\W\d_]+", "x", text)

    assert frame(one(text, seed)) == frame(text)
    kept = Counter(re.findall(r"[^\W\d_]+", text)) - Counter(re.findall(r"[^\W\d_]+", one(text, seed)))
    assert not Counter(kept) - Counter(long_words(text))


@given(WORDS, st.integers(0, 50))
def test_a_word_gets_one_error_of_the_four(word: str, seed: int) -> None:
    changed = one(word, seed)
    assert any(changed in forms for forms in slips(word).values())
    assert changed[0] == word[0]


def test_each_kind_of_error_is_as_frequent() -> None:
    # No letter twice and no form of two kinds: the form identifies the error.
    word = "chartibold"
    forms = slips(word)
    assert sum(map(len, forms.values())) == len(set().union(*forms.values()))
    made = [one(word, seed) for seed in range(4000)]
    counted = {kind: sum(form in found for form in made) for kind, found in forms.items()}
    assert sum(counted.values()) == 4000
    # Binomial(4000, 1/4): standard deviation 27.
    assert all(abs(count - 1000) < 5 * 27 for count in counted.values()), counted
    assert all(found <= set(made) for kind, found in forms.items() if kind != "neighbour")


@given(st.lists(WORDS, min_size=1, max_size=30), st.floats(0.01, 1))
def test_the_rate_is_the_share_of_changed_words(words: list[str], rate: float) -> None:
    before, after = words, one(" ".join(words), 3, rate).split(" ")
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert changed == max(1, round(rate * len(words)))


def test_the_default_rate_is_one_long_word_in_four() -> None:
    text = " ".join(["alarm"] * 40)
    assert sum(word != "alarm" for word in one(text).split(" ")) == 10
    assert sum(word != "alarm" for word in one(text, rate=1).split(" ")) == 40
    assert one(text, rate=0) == text


@given(st.lists(TEXTS, min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_text_has_the_same_errors_at_any_place(texts: list[str], random: Random, seed: int) -> None:
    alone = {text: one(text, seed) for text in texts}
    order = [*texts, *texts]
    random.shuffle(order)
    assert add_typos(order, seed) == [alone[text] for text in order]
    pairs = list(zip(order, reversed(order), strict=True))
    assert add_typos(pairs, seed) == [(alone[first], alone[second]) for first, second in pairs]


def test_the_errors_of_today_are_those_of_tomorrow() -> None:
    texts = ["wake me up at half past six tomorrow", "My card hasn't arrived yet, what should I do?", "no, the 2nd one"]
    assert add_typos(texts) == [
        "wake me up at half pasf six tomorrow",
        "My card hasn't arrive yet, what should I do?",
        "no, the 2nd one",
    ]


def test_another_seed_places_other_errors() -> None:
    text = "please turn the living room lights down tonight"
    assert len({one(text, seed) for seed in range(30)}) > 20


def test_a_letter_that_the_keyboard_lacks() -> None:
    word = "漢字仮名"
    forms = set().union(*slips(word).values())
    assert {one(word, seed) for seed in range(100)} <= forms


def test_a_double_letter_is_never_swapped_unseen() -> None:
    assert all(one("aaaa", seed) != "aaaa" for seed in range(60))


def test_capitals_stay_capitals() -> None:
    made = [one("SCHEDULED", seed) for seed in range(60)]
    assert all(word.isupper() for word in made)


def test_a_text_of_the_greatest_length_gets_no_longer() -> None:
    text = "ab" * (MAX_TEXT_CHARS // 2)
    made = [one(text, seed) for seed in range(16)]
    assert text not in made
    assert {len(changed) for changed in made} == {MAX_TEXT_CHARS, MAX_TEXT_CHARS - 1}


def test_no_letters_at_all() -> None:
    texts = ["", " ", "12:30 - 14:45", "½½½½½", "ok no up", "?!?!?!", unicodedata.lookup("SNOWMAN") * 6]
    assert add_typos(texts) == texts


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_share(rate: float) -> None:
    with pytest.raises(UsageError, match="expected 0 to 1"):
        add_typos(["alarm"], rate=rate)
