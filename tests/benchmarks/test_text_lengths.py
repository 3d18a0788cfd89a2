"""Texts cut to a number of tokens: the tokenizer's count, and their presence in the original texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import MAX_LENGTH, tiny_texts

from reaugkd.benchmarks.sweep.text_lengths import texts_of_length
from reaugkd.errors import UsageError
from reaugkd.runtime.bundle.bundle import TOKENIZER_FILE
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

TEXTS, PAIRS = tiny_texts(30, seed=4), tiny_texts(30, seed=4, pairs=True)


@pytest.fixture(scope="module")
def tokenizer(edge_bundle: Path) -> TextTokenizer:
    return TextTokenizer(edge_bundle / TOKENIZER_FILE, MAX_LENGTH)


@settings(max_examples=30)
@given(st.integers(3, MAX_LENGTH), st.integers(0, 5))
def test_each_has_exactly_so_many_tokens(tokenizer: TextTokenizer, tokens: int, seed: int) -> None:
    made = texts_of_length(tokenizer, TEXTS, tokens, 5, seed)
    assert [len(tokenizer.encode(text)) for text in made] == [tokens] * 5
    assert made == texts_of_length(tokenizer, TEXTS, tokens, 5, seed)
    # The words are those of the texts, one after the other.
    for text in made:
        assert any(text.startswith(whole) or whole.startswith(text) for whole in TEXTS)


@settings(max_examples=20)
@given(st.integers(5, MAX_LENGTH))
def test_pairs(tokenizer: TextTokenizer, tokens: int) -> None:
    made = texts_of_length(tokenizer, PAIRS, tokens, 3)
    for first, second in made:
        assert len(tokenizer.encode(first, second)) == tokens
        assert len(second.split()) - len(first.split()) in (0, 1)  # alike in length, as a word is a token here


@pytest.mark.parametrize("tokens", [1, 2, MAX_LENGTH + 1])
def test_impossible_lengths_are_refused(tokenizer: TextTokenizer, tokens: int) -> None:
    with pytest.raises(UsageError, match=f"found {tokens}; .*max_length"):
        texts_of_length(tokenizer, TEXTS, tokens, 2)
