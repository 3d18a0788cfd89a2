"""The tokens of a tokenizer model (WordPiece, BPE, Unigram), and which of them can be removed safely.

If the kept tokens include the required ones and the parts of each kept one, every text has two properties:

- If all its tokens are kept, it is tokenized as before: each kind of model chooses the best candidate (the longest
  match, the earliest merge, the likeliest path), and the best of all candidates is also the best of fewer candidates.
- If no part of it was unknown before, none is now: removed tokens are replaced by single characters or bytes.
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
class ModelTokens:
    """The tokens of a tokenizer model.

    Args:
        required: tokens that must be kept: single characters or bytes, and the unknown token.
        ranking: tokens that can occur in a text, the most frequent in the model's own training first.
        write: makes the model of tokenizer.json from the ids (0, 1, 2, ...) of the kept tokens.
        parts: the tokens that each token can be merged from.
    """

    required: frozenset[str]
    ranking: Sequence[str]
    write: Callable[[Mapping[str, int]], dict[str, Any]]
    parts: Mapping[str, set[str]] = field(default_factory=dict)

    def with_parts(self, tokens: Iterable[str]) -> set[str]:
        """Return the tokens with all their parts, recursively."""
        closed: set[str] = set()
        waiting = list(tokens)
        while waiting:
            if (token := waiting.pop()) not in closed:
                closed.add(token)
                waiting += self.parts.get(token, ())
        return closed


def model_tokens(tokenizer: Tokenizer) -> ModelTokens:
    """Read the tokens of a tokenizer.

    Raises:
        ModelError: no token can be removed safely: the model is of another kind, or characters in its tokens are
            not tokens themselves.
    """
    model = json.loads(tokenizer.to_str())["model"]
    kinds: dict[str, Callable[[dict[str, Any], Tokenizer], ModelTokens]] = {
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


def _wordpiece(model: dict[str, Any], tokenizer: Tokenizer) -> ModelTokens:
    """WordPiece: the longest matching token at each position; inside a word, tokens with a prefix (##)."""
    vocabulary: dict[str, int] = model["vocab"]
    prefix: str = model["continuing_subword_prefix"]
    inner = {token: token.removeprefix(prefix) for token in vocabulary if token.startswith(prefix)}
    begins = {token for token in vocabulary if len(token) == 1}
    goes_on = {text for text in inner.values() if len(text) == 1}
    words = _word_splitter(tokenizer)

    def at_beginning(text: str) -> bool:
        return any(word.startswith(text) for word in words(text))

    def further_on(text: str) -> bool:
        return any(text in word[1:] for word in words(f"a{text}"))

    def is_spelled(token: str) -> bool:
        if token in inner and not goes_on.issuperset(inner[token]) and further_on(inner[token]):
            return False
        # A token with the prefix also matches literally at the beginning of a word.
        return (token[:1] in begins and goes_on.issuperset(token[1:])) or not at_beginning(token)

    def occurs(token: str) -> bool:
        return further_on(inner[token]) if token in inner else at_beginning(token)

    _require_spelled(token for token in vocabulary.keys() - _added(tokenizer) if not is_spelled(token))
    single = begins | {token for token, text in inner.items() if text in goes_on}
    return ModelTokens(
        required=frozenset(single | ({model["unk_token"]} & vocabulary.keys())),
        # Without tokens that no text contains, such as [unused7], which come first.
        ranking=[token for token in _by_id(vocabulary) if occurs(token)],
        write=lambda ids: {**model, "vocab": dict(ids)},
    )


def _bpe(model: dict[str, Any], tokenizer: Tokenizer) -> ModelTokens:
    """BPE: merges of adjacent tokens, from single characters or bytes, in the order in which merges were learned."""
    vocabulary: dict[str, int] = model["vocab"]
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    single = {token for token in vocabulary if len(token) == 1}
    atoms = {token for token in vocabulary if len(token.removeprefix(prefix).removesuffix(suffix)) == 1}
    in_bytes = _bytes_of(model, vocabulary)
    whole_words = model["ignore_merges"]  # a word that is a token is not split
    if whole_words and len(in_bytes) < _BYTES:
        spelled = set() if prefix or suffix else single
        _require_spelled(token for token in vocabulary.keys() - _added(tokenizer) if not spelled.issuperset(token))
    merges = [(left, right, left + right[len(prefix) :]) for left, right in model["merges"]]
    parts: dict[str, set[str]] = {}
    for left, right, whole in merges:
        parts.setdefault(whole, set()).update((left, right))
    return ModelTokens(
        required=frozenset(single | atoms | in_bytes | ({model["unk_token"]} & vocabulary.keys())),
        ranking=[token for token in _by_id(vocabulary) if whole_words or token in parts],
        write=lambda ids: {
            **model,
            "vocab": dict(ids),
            "merges": [[left, right] for left, right, whole in merges if whole in ids],
        },
        parts=parts,
    )


def _unigram(model: dict[str, Any], tokenizer: Tokenizer) -> ModelTokens:
    """Unigram: the likeliest segmentation of the text; each token has a log-likelihood."""
    scores: dict[str, float] = dict(model["vocab"])
    unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    single = {token for token in scores if len(token) == 1}
    in_bytes = _bytes_of(model, scores)
    if len(in_bytes) < _BYTES:
        special = _added(tokenizer) | {unknown}
        _require_spelled(token for token in scores.keys() - special if not single.issuperset(token))
    # The cost of an unknown character is computed from the least likely token.
    least = min(scores, key=lambda token: scores[token])
    return ModelTokens(
        required=frozenset(single | in_bytes | {least} | (set() if unknown is None else {unknown})),
        ranking=sorted(scores, key=lambda token: -scores[token]),
        write=lambda ids: {
            **model,
            "vocab": [[token, scores[token]] for token in ids],
            "unk_id": None if unknown is None else ids[unknown],
        },
    )


def _require_spelled(hard: Iterable[str]) -> None:
    """Check that single characters can spell all tokens.

    Args:
        hard: the tokens that they cannot spell.

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
    """Sort tokens by descending frequency, which is the order of ids from the tokenizer's training."""
    return sorted(vocabulary, key=lambda token: vocabulary[token])


def _bytes_of(model: Mapping[str, Any], tokens: Iterable[str]) -> set[str]:
    """Return the tokens that spell the bytes of an unknown character, if the model has byte fallback."""
    return {token for token in tokens if _BYTE.fullmatch(token)} if model["byte_fallback"] else set()


def _added(tokenizer: Tokenizer) -> set[str]:
    """Return the added tokens, which are split off a text before the model sees it."""
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def _word_splitter(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    normalise, split = tokenizer.normalizer, tokenizer.pre_tokenizer

    def words(text: str) -> list[str]:
        text = text if normalise is None else normalise.normalize_str(text)
        return [text] if split is None else [word for word, _ in split.pre_tokenize_str(text)]

    return words
