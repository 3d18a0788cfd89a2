"""Cut texts have the first tokens of the whole texts, with every kind of tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.paths import SHARED
from support.tokenizer_kinds import KINDS, PIECES, bert, byte_level, unigram, word_pieces, write
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from reaugkd import TextError
from reaugkd.runtime.inference.text.text_cut import _SPACE, CutPlaces, cut_places
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer


def deberta() -> Tokenizer:
    tokenizer = unigram()
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def albert() -> Tokenizer:
    tokenizer = unigram()
    quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    tokenizer.normalizer = normalizers.Sequence(
        [*quotes, normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer


def joined_chinese() -> Tokenizer:
    """BERT's steps, but Chinese characters are letters like others."""
    tokenizer = bert()
    tokenizer.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    return tokenizer


def digits() -> Tokenizer:
    tokenizer = byte_level()
    steps = [pre_tokenizers.Digits(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFC()])
    return tokenizer


def real(path: str) -> Callable[[], Tokenizer]:
    return lambda: Tokenizer.from_file(str(SHARED / path))


CUT = {name: make for name, make in KINDS.items() if name != "word pieces"}
CUT |= {"BERT": bert, "DeBERTa": deberta, "ALBERT": albert, "digits": digits}
CUT["BERT with joined Chinese"] = joined_chinese
FILES = {"MiniLM": "models/all-MiniLM-L6-v2", "real DeBERTa": "cases/fuse_deberta/bundle/student"}
CUT |= {
    name: real(f"{folder}/tokenizer.json")
    for name, folder in FILES.items()
    if (SHARED / folder / "tokenizer.json").is_file()
}

TEXTS = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " ", " ", "  "])).map("".join), min_size=1, max_size=30
).map("".join)


ALL = {**KINDS, **CUT}


@cache
def source(kind: str) -> str:
    """The content of a kind's tokenizer.json."""
    return ALL[kind]().to_str()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer.json of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: write(Tokenizer.from_str(source(kind)), folder / kind) for kind in ALL}


def bare(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def wrong_places(tokenizer: Tokenizer, places: CutPlaces, text: str) -> list[int]:
    """The places at which the tokens before a cut are other ones than those of the whole text."""
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    cuts = {place: tokenizer.encode(text[:place], add_special_tokens=False).ids for place in places.places(text)}
    return [place for place, ids in cuts.items() if ids != whole[: len(ids)]]


@pytest.mark.parametrize("kind", CUT)
def test_no_cut_changes_a_token_before_it(kind: str) -> None:
    tokenizer = bare(Tokenizer.from_str(source(kind)))
    places = cut_places(tokenizer)
    assert places is not None
    seen = 0

    @settings(max_examples=40, deadline=None)
    @given(text=TEXTS)
    @example(text="a snooze hour!_ alarm")
    @example(text="alarm中文中\u0301文 \U00020000\u3400alarm中文!文中")
    def check(text: str) -> None:
        nonlocal seen
        assert wrong_places(tokenizer, places, text) == []
        seen += len(list(places.places(text)))

    check()
    assert seen > 50


@pytest.mark.parametrize("kind", CUT)
def test_the_check_finds_wrong_places(kind: str) -> None:
    """Cuts between any two characters are not allowed for any kind."""
    tokenizer = bare(Tokenizer.from_str(source(kind)))
    anywhere = CutPlaces(re.compile(r"(?<=.)(?=.)", re.DOTALL))
    assert wrong_places(tokenizer, anywhere, "music alarm" * 2 + " alarms 100 musicians")


def llama() -> Tokenizer:
    """Spaces are letters like others, and merges may go over them."""
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "▁": 2, "a▁": 3, "a▁b": 4}, [("a", "▁"), ("a▁", "b")]))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def replaced_spaces() -> Tokenizer:
    tokenizer = llama()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def unknown_expression() -> Tokenizer:
    """Two words are one piece."""
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, " ": 2, "a ": 3, "a b": 4}, [("a", " "), ("a ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")
    return tokenizer


def token_with_a_mark() -> Tokenizer:
    """The mark of the added token ``a¨b`` becomes a space and an accent, and the accent vanishes."""
    tokenizer = albert()
    tokenizer.add_tokens(["a¨b"])
    return tokenizer


def vanishing() -> Tokenizer:
    """A word vanishes, and the two spaces around it become one."""
    tokenizer = unigram()
    steps = [normalizers.Replace("alarm", ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (word_pieces, "a snooze hour"),  # an added token with a space
        (llama, "a b"),
        (replaced_spaces, "a b"),
        (unknown_expression, "a b"),
        (token_with_a_mark, "a b"),
        (vanishing, "the alarm music"),
    ],
)
def test_without_a_proof_there_is_no_cut(make: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = bare(make())
    assert cut_places(tokenizer) is None
    assert wrong_places(tokenizer, CutPlaces(_SPACE), text)  # and rightly so


@pytest.mark.parametrize("kind", [*KINDS, "BERT", "DeBERTa"])
@settings(max_examples=12, deadline=None)
@given(words=st.lists(st.sampled_from(PIECES), min_size=1, max_size=12), times=st.integers(1, 60))
def test_long_texts_are_encoded_as_whole_ones(files: dict[str, Path], kind: str, words: list[str], times: int) -> None:
    text, made = " ".join(words * times), bare(Tokenizer.from_str(source(kind)))
    tokenizer, whole = TextTokenizer(files[kind], max_length=6), made.encode(text)
    made.enable_truncation(6)
    expected = made.encode(text)
    if not len(expected):
        return
    found = tokenizer.encode(text)
    assert (found.ids, found.type_ids) == (expected.ids, expected.type_ids)
    assert tokenizer.truncated(found) is (len(whole) > 6)


def test_a_long_text_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, seen = TextTokenizer(write(bert(), tmp_path), max_length=6), []

    class Watched:
        def __init__(self, inner: Tokenizer) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def encode(self, text: str, pair: str | None = None) -> object:
            seen.append(len(text))
            return self._inner.encode(text, pair)

    monkeypatch.setattr(tokenizer, "_tokenizer", Watched(tokenizer._tokenizer))
    for text in ("alarm " * 100_000, "!?.;" * 100_000, "中文" * 100_000):
        assert tokenizer.truncated(tokenizer.encode(text))
    assert max(seen) < 120
    seen.clear()
    tokenizer.encode("x" * 100 + " " + "y" * 1000)  # two unknown words: its beginning is not enough
    assert seen == [100, 1101]


def test_what_is_cut_off_must_be_unicode_too(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="not valid Unicode"):
        TextTokenizer(write(bert(), tmp_path), max_length=6).encode("alarm " * 1000 + "\ud800")


@pytest.mark.parametrize("kind", [*KINDS, "BERT", "DeBERTa"])
@settings(max_examples=12, deadline=None)
@given(pieces=st.tuples(TEXTS, TEXTS), times=st.tuples(st.integers(1, 8), st.integers(1, 8)), size=st.integers(6, 9))
def test_long_pairs_are_encoded_as_whole_ones(
    files: dict[str, Path], kind: str, pieces: tuple[str, str], times: tuple[int, int], size: int
) -> None:
    """Which of the two is longer decides which one keeps the odd token."""
    first, second = (text * count for text, count in zip(pieces, times, strict=True))
    made = bare(Tokenizer.from_str(source(kind)))
    tokenizer, whole = TextTokenizer(files[kind], size), made.encode(first, second)
    made.enable_truncation(size, strategy="longest_first")
    expected = made.encode(first, second)
    if len(expected):
        found = tokenizer.encode(first, second)
        assert (found.ids, found.type_ids) == (expected.ids, expected.type_ids)
        assert tokenizer.truncated(found) is (len(whole) > size)


def test_a_pair_of_long_texts_takes_no_memory_for_every_pair_of_their_parts(tmp_path: Path) -> None:
    """The library alone would need minutes, and gigabytes."""
    tokenizer = TextTokenizer(write(bert(), tmp_path), max_length=9)
    encoding = tokenizer.encode("alarm " * 10_000, "music " * 10_001)
    assert tokenizer.truncated(encoding) and len(encoding.overflowing) < 200
