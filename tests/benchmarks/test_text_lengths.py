"""Texts cut to a number of tokens: counted again by the tokenizer, and found again in what they were cut from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import MAX_LENGTH, tiny_texts
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from reaugkd.benchmarks.sweep.text_lengths import texts_of_length, usual_lengths
from reaugkd.errors import UsageError
from reaugkd.runtime.bundle.bundle import TOKENIZER_FILE
from reaugkd.runtime.inference.tokenizer import TextTokenizer

TEXTS, PAIRS = tiny_texts(30, seed=4), tiny_texts(30, seed=4, pairs=True)


@pytest.fixture(scope="module")
def tokenizer(edge_bundle: Path) -> TextTokenizer:
    return TextTokenizer(edge_bundle / TOKENIZER_FILE, MAX_LENGTH)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """A WordPiece tokenizer that splits nearly every word into several pieces."""
    vocabulary = ["[UNK]", "[CLS]", "[SEP]", *"abcdefgh", *(f"##{mark}" for mark in "abcdefgh"), "##ab", "##cde", "bed"]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.json"
    made.save(str(path))
    return TextTokenizer(path, 40)


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


@settings(max_examples=30)
@given(st.integers(3, 40))
def test_words_of_several_pieces_are_cut_where_it_takes_that(pieces: TextTokenizer, tokens: int) -> None:
    texts = ["abcdefgh bed", "deaf cabbage", "hedge abed face", "fade"]
    made = texts_of_length(pieces, texts, tokens, 10)
    assert [len(pieces.encode(text)) for text in made] == [tokens] * 10
    assert len(set(made)) > 1


def test_no_character_is_cut_into_its_bytes(tmp_path: Path) -> None:
    """Of a character that is several tokens, none can be left out: such a cut is not taken."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({mark: i for i, mark in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", 40)
    texts = ["é", "née", "été", "naïveté", "abc", "日本"]
    for tokens in range(1, 12):
        found = texts_of_length(tokenizer, texts, tokens, 8)
        assert [len(text.encode()) for text in found] == [tokens] * 8


def test_texts_without_tokens_are_passed_over(tmp_path: Path) -> None:
    """Spaces are none to this tokenizer, as control characters are to BERT's."""
    made = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", 40)
    found = texts_of_length(tokenizer, ["a a", "", "  ", "   "], 20, 5)
    assert [len(tokenizer.encode(text)) for text in found] == [20] * 5


def test_they_differ_with_the_seed(tokenizer: TextTokenizer) -> None:
    assert texts_of_length(tokenizer, TEXTS, 8, 5, seed=0) != texts_of_length(tokenizer, TEXTS, 8, 5, seed=1)


@pytest.mark.parametrize("tokens", [1, 2, MAX_LENGTH + 1])
def test_what_cannot_be_made_is_refused(tokenizer: TextTokenizer, tokens: int) -> None:
    with pytest.raises(UsageError, match=f"found {tokens}; .*max_length"):
        texts_of_length(tokenizer, TEXTS, tokens, 2)


def test_a_pair_takes_a_word_on_either_side(tokenizer: TextTokenizer) -> None:
    assert len(texts_of_length(tokenizer, PAIRS, 5, 2)) == 2
    with pytest.raises(UsageError, match="found 4"):
        texts_of_length(tokenizer, PAIRS, 4, 2)


def test_the_usual_lengths_end_where_the_model_does() -> None:
    assert usual_lengths(512) == (8, 16, 32, 64, 128)
    assert usual_lengths(48) == (8, 16, 32)
    assert usual_lengths(8) == (8,)
    assert usual_lengths(5) == (5,)
