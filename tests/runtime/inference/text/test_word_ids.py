"""Ids from the table of words are those of the tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import SHARED
from support.tokenizer_kinds import (
    PIECES,
    SPECIAL,
    bare_word_pieces,
    bert,
    byte_level,
    letter_pairs,
    unigram,
    word_pieces,
    write,
)
from tokenizers import Tokenizer, normalizers, processors

from reaugkd import TextError
from reaugkd.runtime.inference.text import word_ids as module
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer
from reaugkd.runtime.inference.text.word_ids import word_ids

REAL = SHARED / "models/all-MiniLM-L6-v2/tokenizer.json"
ANY = st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
TEXTS = st.lists(st.tuples(ANY, st.sampled_from(["", " ", " ", "  "])).map("".join), min_size=1, max_size=30)


def real() -> Tokenizer:
    if not REAL.is_file():
        pytest.skip("needs ../shared")
    return Tokenizer.from_file(str(REAL))


def cased() -> Tokenizer:
    made = bert()
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    return made


def plain() -> Tokenizer:
    """No added token but BERT's own: words of the vocabulary are looked up."""
    content = json.loads(word_pieces().to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(content))


def plain_cased() -> Tokenizer:
    made = plain()
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    return made


@pytest.fixture(scope="module", params=[bert, cased, plain, plain_cased, real])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param(), tmp_path_factory.mktemp("kind"))


@pytest.mark.parametrize("size", [3, 4, 9, 64])
def test_any_text_has_the_ids_of_the_tokenizer(file: Path, size: int) -> None:
    tokenizer, truncated = TextTokenizer(file, size), 0
    assert tokenizer._words is not None

    @settings(max_examples=150, deadline=None)
    @given(TEXTS.map("".join))
    def check(text: str) -> None:
        nonlocal truncated
        expected, found = tokenizer.encode(text), tokenizer.tokens(text)
        assert found.ids == expected.ids and not any(expected.type_ids) and not any(found.type_ids or [])
        assert found.truncated is tokenizer.truncated(expected)
        truncated += found.truncated

    check()
    assert truncated or size > 9


def test_a_full_table_is_emptied(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WORDS", 3)
    tokenizer = TextTokenizer(file, 32)
    for _ in range(50):
        text = " ".join(random.choices("alarm music hour snooze ring clock jazz band".split(), k=5))
        assert tokenizer.tokens(text).ids == tokenizer.encode(text).ids
        assert tokenizer._words is not None and len(tokenizer._words._known) <= 3


def without_specials() -> Tokenizer:
    made = bert()
    made.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return made


@pytest.mark.parametrize("make", [word_pieces, bare_word_pieces, byte_level, letter_pairs, unigram, without_specials])
def test_without_a_proof_there_is_no_table(make: Callable[[], Tokenizer]) -> None:
    assert word_ids(make(), 16) is None


def test_words_that_are_cut_off_are_not_learned(file: Path) -> None:
    tokenizer, text = TextTokenizer(file, 16), " ".join(f"alarm{number}" for number in range(50))
    found = tokenizer.tokens(text)
    assert found.ids == tokenizer.encode(text).ids and found.truncated
    assert tokenizer._words is not None and len(tokenizer._words._known) <= 15


@pytest.mark.parametrize("text", ["alarm \ud800 music", " ".join(f"alarm{n}" for n in range(20)) + " \udfff"])
def test_text_that_is_no_unicode_is_refused(file: Path, text: str) -> None:
    with pytest.raises(TextError, match="not valid Unicode"):
        TextTokenizer(file, 8).tokens(text)
