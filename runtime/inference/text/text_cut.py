"""The beginning of a long text that has the same first tokens as the whole text.

Tokenizers keep some 200 bytes for each character of a text, and a model reads its first tokens alone. A text may be cut
at a place where every step of the tokenizer works on both sides independently. Such a place is a space between two
visible characters, if

- each normalizer changes characters by themselves or with their combining marks, and no mark follows the space;
- the first pre-tokenizer that looks at white space splits there;
- no added token is empty or has white space in it, as written or normalized, so none lies across the space.

`cut_places` checks a tokenizer for these; for any other tokenizer a text is never cut. In BERT's steps, a place between
two marks of punctuation is as good, because each mark is a word; but not before ``_``, which an added token can take
for a letter. So is a place between two Chinese characters, where the normalizer puts spaces around each.
`tests/runtime/inference/text/test_text_cut.py` compares cut and whole texts of every kind of tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

_VISIBLE = r"!-~A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a1\u03a3-\u03c9\u0400-\u0481\u048a-\u052f"
"""ASCII, and letters of Latin, Greek and Cyrillic script: none of them joins with a space."""

_SPACE = re.compile(rf"(?<=[{_VISIBLE}]) (?=[{_VISIBLE}])")
_MARKS = re.compile(r"(?<=[!-/:-@\[-`{-~])(?=[!-/:-@\[-^`{-~])")
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002a6df\U0002a700-\U0002b81f"  # none changes by normalization
_CHINESE = re.compile(rf"(?<=[{_HAN}])(?=[{_HAN}])")

_LOCAL = frozenset("BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Strip StripAccents".split())
_SPLITTING = frozenset("BertPreTokenizer Whitespace WhitespaceSplit Metaspace ByteLevel".split())
_NOT_SPLITTING = frozenset(["Punctuation", "Digits"])  # they split at other places, and leave the space as it is
_BERT = (["BertNormalizer"], ["BertPreTokenizer"])


class CutPlaces:
    """The places at which one tokenizer allows a cut.

    Args:
        place: matches the empty string, or one space, at such a place.
        across: strings that must not lie across the place.
    """

    def __init__(self, place: re.Pattern[str], across: frozenset[str] = frozenset()) -> None:
        self._place, self._across = place, across

    def places(self, text: str, least: int = 1) -> Iterator[int]:
        """The allowed places from character ``least``: the numbers of characters before a cut."""
        for found in self._place.finditer(text, least):
            if text[found.start() - 1 : found.end() + 1] not in self._across:
                yield found.start()


def cut_places(tokenizer: Tokenizer) -> CutPlaces | None:
    """The places at which this tokenizer allows a cut; None if there are none that are proven."""
    normalizers, splitters = steps(tokenizer)
    tokens = added_tokens(tokenizer)
    if not all(map(_is_local, normalizers)) or not _splits(splitters) or not _without_spaces(tokens):
        return None
    if not _is_bert(normalizers, splitters) or not all(map(str.isascii, tokens)):
        return CutPlaces(_SPACE)
    across = frozenset(token[at : at + 2] for token in tokens for at in range(len(token) - 1))
    places = [_SPACE, _MARKS, *([_CHINESE] if normalizers[0]["handle_chinese_chars"] else [])]
    return CutPlaces(re.compile("|".join(place.pattern for place in places)), across)


def spaces_are_places(tokenizer: Tokenizer) -> bool:
    """Whether every space (U+0020) is an allowed place: the steps are BERT's, and no added token has white space."""
    return _is_bert(*steps(tokenizer)) and _without_spaces(added_tokens(tokenizer))


def steps(tokenizer: Tokenizer) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The normalizers and pre-tokenizers, in order."""
    steps = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    normalizers, splitters = (list(_flat(None if one is None else json.loads(one.__getstate__()))) for one in steps)
    return normalizers, splitters


def added_tokens(tokenizer: Tokenizer) -> list[str]:
    """The added tokens as written and as normalized."""
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    if tokenizer.normalizer is not None:
        tokens += map(tokenizer.normalizer.normalize_str, tokens[:])
    return tokens


def _without_spaces(tokens: list[str]) -> bool:
    return all(tokens) and not any(re.search(r"[\s▁]", token) for token in tokens)


def _is_bert(normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]]) -> bool:
    return ([one["type"] for one in normalizers], [one["type"] for one in splitters]) == _BERT


def _flat(step: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps in a sequence of sequences, in order."""
    if step is None:
        return
    if step.get("type") != "Sequence":
        yield step
        return
    for inner in step.get("normalizers", step.get("pretokenizers", [])):
        yield from _flat(inner)


def _is_local(step: dict[str, Any]) -> bool:
    """Whether a normalizer works on both sides of a place independently."""
    if step["type"] == "Replace":
        literal, content = step["pattern"].get("String"), step["content"]
        if literal is None:
            return step["pattern"] == {"Regex": " {2,}"} and content in (" ", "▁")
        return bool(content) and not re.search(r"\s", literal + content)
    return step["type"] in _LOCAL


def _splits(steps: list[dict[str, Any]]) -> bool:
    """Whether the first pre-tokenizer that looks at white space splits at the place."""
    for step in steps:
        if step["type"] in _SPLITTING:
            return bool(step.get("split", True) and step.get("use_regex", True))
        if step["type"] not in _NOT_SPLITTING:
            return False
    return False
