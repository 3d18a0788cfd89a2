"""The subwords of a tokenizer model (WordPiece, BPE, Unigram), and which of them can be removed safely.

If the kept subwords include the required ones and the parts of each kept one, every text has two properties:

- If all its subwords are kept, it is tokenized as before: each kind of model chooses the best candidate (the longest
  match, the earliest merge, the likeliest path), and the best of all candidates is also the best of fewer candidates.
- If no part of it was unknown before, none is now: removed subwords are replaced by single characters or bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from ...errors import ModelError

KEEP_ALL = "Export without --vocabulary, which keeps all."

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_BYTES = 256
_SHOWN = 5


@dataclass(frozen=True)
class Subwords:
    """The subwords of a tokenizer model.

    Args:
        required: subwords that must be kept: single characters or bytes, and the unknown token.
        ranking: subwords that can occur in a text, the most frequent in the model's own training first.
        write: makes the model of tokenizer.json from the ids (0, 1, 2, ...) of the kept subwords.
        parts: the subwords that each subword can be merged from.
    """

    required: frozenset[str]
    ranking: Sequence[str]
    write: Callable[[Mapping[str, int]], dict[str, Any]]
    parts: Mapping[str, set[str]] = field(default_factory=dict)

    def with_parts(self, subwords: Iterable[str]) -> set[str]:
        """Return the subwords with all their parts, recursively."""
        closed: set[str] = set()
        waiting = list(subwords)
        while waiting:
            if (subword := waiting.pop()) not in closed:
                closed.add(subword)
                waiting += self.parts.get(subword, ())
        return closed


def subwords_of(tokenizer: Tokenizer) -> Subwords:
    """Read the subwords of a tokenizer.

    Raises:
        ModelError: no subword can be removed safely: the model is of another kind, or characters in its subwords are
            not subwords themselves.
    """
    model = json.loads(tokenizer.to_str())["model"]
    kinds: dict[str, Callable[[dict[str, Any], Tokenizer], Subwords]] = {
        "WordPiece": _wordpiece,
        "BPE": _bpe,
        "Unigram": _unigram,
    }
    if (kind := model["type"]) not in kinds:
        raise ModelError(
            "the vocabulary of this kind of tokenizer cannot be pruned",
            found=kind,
            expected=", ".join(kinds),
            remedy=KEEP_ALL,
        )
    return kinds[kind](model, tokenizer)


def _wordpiece(model: dict[str, Any], tokenizer: Tokenizer) -> Subwords:
    """WordPiece: the longest matching subword at each position; inside a word, subwords with a prefix (##)."""
    vocabulary: dict[str, int] = model["vocab"]
    prefix: str = model["continuing_subword_prefix"]
    inner = {subword: subword.removeprefix(prefix) for subword in vocabulary if subword.startswith(prefix)}
    begins = {subword for subword in vocabulary if len(subword) == 1}
    goes_on = {text for text in inner.values() if len(text) == 1}
    words = _word_splitter(tokenizer)

    def at_beginning(text: str) -> bool:
        return any(word.startswith(text) for word in words(text))

    def further_on(text: str) -> bool:
        return any(text in word[1:] for word in words(f"a{text}"))

    def is_spelled(subword: str) -> bool:
        if subword in inner and not goes_on.issuperset(inner[subword]) and further_on(inner[subword]):
            return False
        # A subword with the prefix also matches literally at the beginning of a word.
        return (subword[:1] in begins and goes_on.issuperset(subword[1:])) or not at_beginning(subword)

    def occurs(subword: str) -> bool:
        return further_on(inner[subword]) if subword in inner else at_beginning(subword)

    _require_spelled(subword for subword in vocabulary.keys() - _added(tokenizer) if not is_spelled(subword))
    single = begins | {subword for subword, text in inner.items() if text in goes_on}
    return Subwords(
        required=frozenset(single | ({model["unk_token"]} & vocabulary.keys())),
        # Without subwords that no text contains, such as [unused7], which come first.
        ranking=[subword for subword in _by_id(vocabulary) if occurs(subword)],
        write=lambda ids: {**model, "vocab": dict(ids)},
    )


def _bpe(model: dict[str, Any], tokenizer: Tokenizer) -> Subwords:
    """BPE: merges of adjacent subwords, from single characters or bytes, in the order in which merges were learned."""
    vocabulary: dict[str, int] = model["vocab"]
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    single = {subword for subword in vocabulary if len(subword) == 1}
    atoms = {subword for subword in vocabulary if len(subword.removeprefix(prefix).removesuffix(suffix)) == 1}
    in_bytes = _bytes_of(model, vocabulary)
    whole_words = model["ignore_merges"]  # a word that is a subword is not split
    if whole_words and len(in_bytes) < _BYTES:
        spelled = set() if prefix or suffix else single
        _require_spelled(
            subword for subword in vocabulary.keys() - _added(tokenizer) if not spelled.issuperset(subword)
        )
    merges = [(left, right, left + right[len(prefix) :]) for left, right in model["merges"]]
    parts: dict[str, set[str]] = {}
    for left, right, whole in merges:
        parts.setdefault(whole, set()).update((left, right))
    return Subwords(
        required=frozenset(single | atoms | in_bytes | ({model["unk_token"]} & vocabulary.keys())),
        ranking=[subword for subword in _by_id(vocabulary) if whole_words or subword in parts],
        write=lambda ids: {
            **model,
            "vocab": dict(ids),
            "merges": [[left, right] for left, right, whole in merges if whole in ids],
        },
        parts=parts,
    )


def _unigram(model: dict[str, Any], tokenizer: Tokenizer) -> Subwords:
    """Unigram: the likeliest segmentation of the text; each subword has a log-likelihood."""
    scores: dict[str, float] = dict(model["vocab"])
    unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    single = {subword for subword in scores if len(subword) == 1}
    in_bytes = _bytes_of(model, scores)
    if len(in_bytes) < _BYTES:
        special = _added(tokenizer) | {unknown}
        _require_spelled(subword for subword in scores.keys() - special if not single.issuperset(subword))
    # The cost of an unknown character is computed from the least likely subword.
    least = min(scores, key=lambda subword: scores[subword])
    return Subwords(
        required=frozenset(single | in_bytes | {least} | (set() if unknown is None else {unknown})),
        ranking=sorted(scores, key=lambda subword: -scores[subword]),
        write=lambda ids: {
            **model,
            "vocab": [[subword, scores[subword]] for subword in ids],
            "unk_id": None if unknown is None else ids[unknown],
        },
    )


def _require_spelled(hard: Iterable[str]) -> None:
    """Check that single characters can spell all subwords.

    Args:
        hard: the subwords that they cannot spell.

    Raises:
        ModelError: there are any.
    """
    if found := sorted(hard):
        raise ModelError(
            "the vocabulary cannot be pruned: single characters cannot spell some tokens",
            found=", ".join(found[:_SHOWN]) + f" and {len(found) - _SHOWN} more" * (len(found) > _SHOWN),
            expected="every character as a token",
            remedy=KEEP_ALL,
        )


def _by_id(vocabulary: Mapping[str, int]) -> list[str]:
    """Sort subwords by descending frequency, which is the order of ids from the tokenizer's training."""
    return sorted(vocabulary, key=lambda subword: vocabulary[subword])


def _bytes_of(model: Mapping[str, Any], subwords: Iterable[str]) -> set[str]:
    """Return the subwords that spell the bytes of an unknown character, if the model has byte fallback."""
    return {subword for subword in subwords if _BYTE.fullmatch(subword)} if model["byte_fallback"] else set()


def _added(tokenizer: Tokenizer) -> set[str]:
    """Return the added tokens, which are split off a text before the model sees it."""
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def _word_splitter(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    normalise, split = tokenizer.normalizer, tokenizer.pre_tokenizer

    def words(text: str) -> list[str]:
        text = text if normalise is None else normalise.normalize_str(text)
        return [text] if split is None else [word for word, _ in split.pre_tokenize_str(text)]

    return words
