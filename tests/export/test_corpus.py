from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections import Counter
from string import ascii_lowercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd.errors import UsageError
from reaugkd.export.corpus import generate
from reaugkd.export.corpus.catalogue import INTENTS
from reaugkd.export.corpus.generate import MISSPELT_SHARE, Utterance, normalise, utterances
from reaugkd.export.corpus.grammar import Speaker, parse, skeletons, slot_names, tidy
from reaugkd.export.corpus.noise import misspell
from reaugkd.export.corpus.slots import SLOTS, slot_table
from reaugkd.runtime.data import Dataset

SIZES = {"train": 6000, "dev": 800, "test": 1600}

# Changing a template, a filler or a weight changes the corpus, and with it the demo's figures: pin the new digest
# knowingly.
DIGEST = "73efb2a47622114d52789154c5ca0b879f9df8bd3c0d3343b93c742ee68106ba"


@pytest.fixture(scope="module")
def corpus() -> Dataset:
    return generate()


@pytest.fixture(scope="module")
def said() -> dict[str, list[Utterance]]:
    seen: set[str] = set()
    return {name: utterances(name, rows, 0, seen) for name, rows in SIZES.items()}


def test_corpus_is_the_pinned_one(corpus: Dataset) -> None:
    rows = [[name, split.texts, split.labels] for name, split in corpus.splits.items()]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == DIGEST


def test_shape_of_the_data_set(corpus: Dataset) -> None:
    assert corpus.name == "demo"
    assert list(corpus.splits) == list(SIZES)
    assert corpus.label_names == tuple(sorted({intent.name for intent in INTENTS}))
    for name, split in corpus.splits.items():
        assert len(split) == SIZES[name]
        assert split.pairs is None
        assert split.rows == list(range(1, SIZES[name] + 1))
        assert set(split.labels or ()) == set(corpus.label_names)


def test_rows_are_shuffled(corpus: Dataset) -> None:
    labels = corpus.splits["train"].labels or []
    # Sorted by label there would be 49 changes; at random nearly every row changes.
    assert sum(a != b for a, b in itertools.pairwise(labels)) > 0.9 * len(labels)


def test_classes_are_balanced_with_a_mild_tail(corpus: Dataset) -> None:
    for split in corpus.splits.values():
        counts = Counter(split.labels or ())
        assert 1.5 < max(counts.values()) / min(counts.values()) < 4


def test_no_text_comes_twice_in_the_corpus(said: dict[str, list[Utterance]]) -> None:
    everything = [u for split in said.values() for u in split]
    assert len({normalise(u.text) for u in everything}) == len(everything)
    assert len({normalise(u.clean) for u in everything}) == len(everything)


def test_no_test_text_is_a_train_text_without_its_misspellings(said: dict[str, list[Utterance]]) -> None:
    trained = {normalise(text) for name in ("train", "dev") for u in said[name] for text in (u.text, u.clean)}
    assert trained.isdisjoint(normalise(text) for u in said["test"] for text in (u.text, u.clean))


def test_texts_look_like_a_voice_assistants(corpus: Dataset) -> None:
    for split in corpus.splits.values():
        for text in split.texts:
            assert re.fullmatch(r"[a-z0-9'.:+/ -]+", text), text
            assert text == " ".join(text.split())
            assert 1 <= len(text.split()) <= 40


def test_same_seed_same_corpus_other_seed_another() -> None:
    first = generate(120, 60, 60, seed=1)
    assert generate(120, 60, 60, seed=1) == first
    other = generate(120, 60, 60, seed=2)
    assert len(set(first.splits["train"].texts) & set(other.splits["train"].texts)) < 12


def test_the_global_random_state_is_left_alone() -> None:
    before = random.getstate()
    generate(60, 0, 0)
    assert random.getstate() == before


@given(rows=st.integers(0, 300), seed=st.integers(-5, 5))
@settings(max_examples=20, deadline=None)
def test_any_number_of_rows(rows: int, seed: int) -> None:
    split = generate(rows, 0, 0, seed=seed).splits["train"]
    assert len(split) == rows
    assert (len(set(split.labels or ())) == len(INTENTS)) == (rows >= len(INTENTS))


def test_negative_and_too_many_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="dev rows; found -1; expected 0 or more"):
        generate(10, -1, 10)
    with pytest.raises(UsageError, match=r"no more test sentences for the intent '\w+'.*Ask for fewer rows"):
        generate(0, 0, 40_000)


def test_about_one_row_in_eight_is_misspelt(said: dict[str, list[Utterance]]) -> None:
    for name, split in said.items():
        share = sum(u.text != u.clean for u in split) / len(split)
        # Four standard deviations of a draw of 800, and the few rows that offer no word to misspell.
        assert MISSPELT_SHARE - 0.05 < share < MISSPELT_SHARE + 0.046, name


# --- the catalogue ------------------------------------------------------------------------------------------------


def test_catalogue_is_rich_enough() -> None:
    names = [intent.name for intent in INTENTS]
    assert len(set(names)) == len(names) >= 32
    assert len(SLOTS) >= 20
    for intent in INTENTS:
        assert len(set(intent.train)) == len(intent.train) >= 10, intent.name
        assert len(set(intent.test)) == len(intent.test) >= 4, intent.name
        assert 0 < intent.weight <= 2


def test_no_template_is_used_twice() -> None:
    templates = [template for intent in INTENTS for template in (*intent.train, *intent.test)]
    assert [t for t, n in Counter(templates).items() if n > 1] == []


def test_no_phrasing_of_test_is_a_phrasing_of_train() -> None:
    """Stronger than unequal templates: none of the sentences with open slots that they can say is shared."""
    trained = {tidy(s) for intent in INTENTS for template in intent.train for s in skeletons(parse(template))}
    tested = {tidy(s) for intent in INTENTS for template in intent.test for s in skeletons(parse(template))}
    assert len(trained) > 5000
    assert len(tested) > 3000
    assert trained & tested == set()


def test_every_slot_exists_and_is_used() -> None:
    templates = [template for intent in INTENTS for template in (*intent.train, *intent.test)]
    fillers = [filler for fillings in SLOTS.values() for filler in fillings]
    used = {name for template in (*templates, *fillers) for name in slot_names(parse(template))}
    assert used == set(SLOTS)


def test_every_filler_can_be_said() -> None:
    speaker = Speaker(random.Random(0), slot_table())
    for name, fillings in slot_table().items():
        for filling in fillings:
            assert speaker.say(filling), name


# --- the grammar --------------------------------------------------------------------------------------------------


def _sentences(template: str, slots: dict[str, tuple[str, ...]] | None = None, draws: int = 300) -> set[str]:
    table = {name: tuple(parse(f) for f in fillings) for name, fillings in (slots or {}).items()}
    speaker = Speaker(random.Random(0), table)
    node = parse(template)
    return {speaker.say(node) for _ in range(draws)}


def test_alternatives_optional_parts_and_slots() -> None:
    assert _sentences("{wake|get} me [up] at <time>", {"time": ("six", "{7|8} am")}) == {
        f"{verb} me {up}at {time}" for verb in ("wake", "get") for up in ("", "up ") for time in ("six", "7 am", "8 am")
    }
    assert _sentences("a[b|{c|d}[e]]") == {"a", "ab", "ac", "ad", "ace", "ade"}
    assert _sentences("") == {""}


def test_a_slot_that_comes_twice_is_filled_differently() -> None:
    cities = {"city": ("rome", "oslo", "bonn")}
    trips = _sentences("from <city> to <city>", cities)
    assert trips == {f"from {a} to {b}" for a in cities["city"] for b in cities["city"] if a != b}
    assert _sentences("<one> and <one>", {"one": ("x",)}) == {"x and x"}


def test_articles_are_put_right() -> None:
    assert tidy(" a  eye appointment") == "an eye appointment"
    assert tidy("the the lakers game, a the lakers game") == "the lakers game, a lakers game"
    assert tidy("a 8 minute timer") == "an 8 minute timer"
    assert tidy("a 80 second timer, a 18 hour day") == "an 80 second timer, an 18 hour day"
    for right in ("a one hour timer", "a u2 song", "a euro", "a hotel", "a 10 minute timer", "a 180 degree turn"):
        assert tidy(right) == right


def test_skeletons_are_all_phrasings() -> None:
    assert sorted(skeletons(parse("{a|b} <c>[d|e]"))) == ["a <c>", "a <c>d", "a <c>e", "b <c>", "b <c>d", "b <c>e"]
    template = "[please|can you] {wake|get} me [up [there]] at <time>"
    assert _sentences(template, {"time": ("TIME",)}, 2000) == {
        tidy(s).replace("<time>", "TIME") for s in skeletons(parse(template))
    }


@pytest.mark.parametrize(
    ("template", "character"),
    [("wake {me", 6), ("wake me]", 8), ("a|b", 2), ("at <time", 4), ("at <>", 4), ("[a}", 3), ("[a", 1), ("x > y", 3)],
)
def test_malformed_templates_are_named(template: str, character: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"template {template!r}, character {character}: ")):
        parse(template)


# --- misspellings -------------------------------------------------------------------------------------------------


def _one_slip(word: str) -> set[str]:
    """Every string that one slip makes of a word, and the word itself."""
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    dropped = {a + b[1:] for a, b in cuts}
    swapped = {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    replaced = {a + c + b[1:] for a, b in cuts if b for c in ascii_lowercase}
    inserted = {a + c + b for a, b in cuts for c in ascii_lowercase}
    return {word} | dropped | swapped | replaced | inserted


@given(seed=st.integers(0, 10_000), word=st.from_regex(r"[a-z]{4,9}", fullmatch=True))
@settings(max_examples=200, deadline=None)
def test_at_most_two_slips_of_the_fingers_and_never_the_first_letter(seed: int, word: str) -> None:
    # "qzx" before the word keeps it out of the table of known misspellings.
    word = f"qzx{word}"
    wrong = misspell(word, random.Random(seed))
    assert _one_slip(word) & _one_slip(wrong)  # at most two: a slip can be undone by a slip, so they meet half way
    assert wrong[0] == "q"


def test_nearly_every_slip_shows() -> None:
    assert sum(misspell("qzxabcdef", random.Random(seed)) != "qzxabcdef" for seed in range(200)) > 190


def test_short_words_and_digits_stay_as_they_are() -> None:
    for seed in range(50):
        assert misspell("up 7:30 by 1200", random.Random(seed)) == "up 7:30 by 1200"


def test_known_misspellings_and_lost_apostrophes_occur() -> None:
    heard = {misspell("what's the weather tomorrow", random.Random(seed)) for seed in range(300)}
    assert "what's the whether tomorrow" in heard
    assert "what's the weather tommorow" in heard
    assert "whats the weather tomorrow" in heard
