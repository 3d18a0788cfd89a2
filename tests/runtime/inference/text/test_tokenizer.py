from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import MAX_LENGTH, WORDS, build_tiny_bundle

from reaugkd import BundleError, TextError
from reaugkd.runtime.inference.text.inputs import MAX_TEXT_CHARS, checked_input
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", rows=0) / "student/tokenizer.json"


def ids(words: str) -> list[int]:
    return [{"[CLS]": 2, "[SEP]": 3, "[UNK]": 1}.get(word) or 4 + WORDS.index(word) for word in words.split()]


def test_no_padding_and_the_manifests_truncation_for_any_file(file: Path) -> None:
    tokenizer = TextTokenizer(file, MAX_LENGTH)
    encoding = tokenizer.encode("Alarm at NOON five six")
    assert encoding.ids == ids("[CLS] alarm [UNK] noon five [UNK] [SEP]")
    assert len(tokenizer.encode("alarm " * 100).ids) == MAX_LENGTH
    assert tokenizer.encode("alarm " * 100).ids[-1] == 3  # the special tokens survive


def test_pairs_have_types_and_lose_the_longer_text_first(file: Path) -> None:
    tokenizer = TextTokenizer(file, 10)
    encoding = tokenizer.encode("alarm album", "noon " * 50)
    assert encoding.ids == ids("[CLS] alarm album [SEP] noon noon noon noon noon [SEP]")
    assert encoding.type_ids == [0] * 4 + [1] * 6


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"\xff"):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(BundleError, match="tokenizer") as caught:
            TextTokenizer(tmp_path / "tokenizer.json", 10)
        assert caught.value.path == str(tmp_path / "tokenizer.json")


def test_text_that_is_no_unicode_is_the_users_mistake(file: Path) -> None:
    for text, pair in (("\ud800", None), ("a", "\udfff")):
        with pytest.raises(TextError, match="Unicode"):
            TextTokenizer(file, 10).encode(text, pair)


@settings(max_examples=100, deadline=None)
@given(text=st.text(min_size=1))
def test_any_text_is_encoded(file: Path, text: str) -> None:
    assert 2 <= len(TextTokenizer(file, 10).encode(text).ids) <= 10


def test_inputs_are_checked() -> None:
    assert checked_input("a", False) == ("a", None)
    assert checked_input(("a", "b"), True) == checked_input(["a", "b"], True) == ("a", "b")
    assert checked_input("a" * MAX_TEXT_CHARS, False)[0]


@pytest.mark.parametrize(
    ("item", "pair", "message"),
    [
        ("", False, "empty"),
        (" \t\n\u3000", False, "empty"),
        ("a" * (MAX_TEXT_CHARS + 1), False, "too long.*1000001"),
        (("a", ""), True, "empty"),
        (("", "a"), True, "empty"),
        ("a", True, "pairs"),
        (("a", "b"), False, "single"),
        (("a", "b", "c"), True, "3 values"),
        (None, False, "nothing"),
        (3.5, False, "float"),
        (b"a", False, "bytes"),
        (("a", None), True, "nothing"),
    ],
)
def test_an_unusable_input_is_an_error_with_a_reason(item: object, pair: bool, message: str) -> None:
    with pytest.raises(TextError, match=message):
        checked_input(item, pair)
