"""Token ids of texts from a table of their words: after a run of the model 12 us instead of 51, and 10 for a new word.

BERT's normalizer changes characters by themselves, except that NFD orders combining marks, never over a space. Its
pre-tokenizer splits at white space, and WordPiece sees one piece at a time. So the ids of a text are those of the parts
between its spaces, if no added token has white space in it. `test_word_ids.py` compares them with the tokenizer's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from .text_cut import added_tokens, spaces_are_places, steps

_MOST_WORDS = 4096
"""Words in the table: 1 MB, or up to 15 of the oddest. A full table is emptied, and the next texts fill it again."""
_PIECES = re.compile(r"[A-Za-z0-9]+|[!-~]")
_LONGEST_WORD = 32  # characters; longer ones are not kept


class Tokens(NamedTuple):
    """The tokens of a text or pair.

    Attributes:
        ids: their ids, with special tokens.
        type_ids: the number of each token's text, 0 or 1; None if all are 0.
        truncated: whether they are only the beginning of the text or pair.
    """

    ids: Sequence[int]
    type_ids: Sequence[int] | None
    truncated: bool


class WordIds:
    """The ids of words, kept by the word; may be used from several threads.

    Args:
        tokenizer: one that `word_ids` approves.
        before: ids of the special tokens before a text.
        after: ids of those after it.
        room: the largest number of other tokens.
    """

    def __init__(self, tokenizer: Tokenizer, before: list[int], after: list[int], room: int) -> None:
        self._tokenizer, self._before, self._after, self._room = tokenizer, before, after, room
        self._known: dict[str, list[int]] = {}
        self._lowers = bool(steps(tokenizer)[0][0].get("lowercase"))
        self._plain = _plain_words(tokenizer)

    def tokens(self, text: str) -> Tokens:
        """The tokens of one text; same as those of the tokenizer.

        Raises:
            Exception: what the tokenizer raises.
        """
        known, ids = self._known, self._before.copy()
        most = len(ids) + self._room
        for word in text.split(" "):
            try:
                ids += known[word]
            except KeyError:
                if len(ids) > most:  # the rest is cut off: its words are not worth a visit of the tokenizer
                    text.encode()  # which would refuse the text if it is not valid Unicode
                    break
                ids += self._learned(word)
        if len(ids) <= most:
            ids += self._after
            return Tokens(ids, None, False)
        del ids[most:]
        ids += self._after
        return Tokens(ids, None, True)

    def _learned(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return self._encoded(word)
        if self._plain is None or self._plain.fullmatch(word) is None:
            ids = self._encoded(word)
        else:  # twice as fast as the tokenizer
            ids = []
            for piece in _PIECES.findall(word.lower() if self._lowers else word):
                known = self._tokenizer.token_to_id(piece)
                ids += self._encoded(piece) if known is None else [known]
        if len(self._known) >= _MOST_WORDS:
            self._known.clear()
        self._known[word] = ids
        return ids

    def _encoded(self, word: str) -> list[int]:
        encoding = self._tokenizer.encode(word, add_special_tokens=False)
        return [*encoding.ids, *(one for part in encoding.overflowing for one in part.ids)]  # it truncates


def _plain_words(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Matches words of ASCII's letters, digits and marks that have no part of an added token.

    Each mark is a piece, and so is each run of letters and digits: a piece in the vocabulary is one token. None if an
    added token has only letters and digits, or if the model refuses such words for their length.
    """
    tokens = added_tokens(tokenizer)
    if tokenizer.model.max_input_chars_per_word < _LONGEST_WORD or any(
        re.fullmatch("[A-Za-z0-9]+", token) for token in tokens
    ):
        return None
    marks = "".join(sorted({re.escape(mark) for token in tokens for mark in re.findall("[^A-Za-z0-9]", token)}))
    return re.compile(rf"(?:(?![{marks}])[!-~])+" if marks else "[!-~]+")


def word_ids(tokenizer: Tokenizer, max_length: int) -> WordIds | None:
    """A table for a tokenizer that truncates to ``max_length`` tokens; None if a word's ids may depend on others."""
    if type(tokenizer.model).__name__ != "WordPiece" or not spaces_are_places(tokenizer):
        return None
    word = "a"
    whole, alone = tokenizer.encode(word), tokenizer.encode(word, add_special_tokens=False).ids
    special = len(whole) - 1
    if len(alone) != 1 or whole.ids.count(alone[0]) != 1 or any(whole.type_ids) or not 0 < special <= max_length:
        return None
    at = whole.ids.index(alone[0])
    return WordIds(tokenizer, whole.ids[:at], whole.ids[at + 1 :], max_length - special)
