"""Token ids of texts from a table of their words: four times as fast as the tokenizer behind a run of the model.

BERT's normalizer changes characters by themselves, except that NFD orders combining marks, never over a space. Its
pre-tokenizer splits at white space, and WordPiece sees one piece at a time. So the ids of a text are those of the parts
between its spaces, if no added token has white space in it. `tests/runtime/inference/test_word_ids.py` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from .text_cut import spaces_are_places

_MOST_WORDS = 4096
"""Words in the table: 1 MB. A full table is emptied, and the next texts fill it again."""
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

    def tokens(self, text: str) -> Tokens:
        """The tokens of one text; same as those of the tokenizer.

        Raises:
            Exception: what the tokenizer raises.
        """
        known, ids = self._known, self._before.copy()
        for word in text.split(" "):
            try:
                ids += known[word]
            except KeyError:
                ids += self._learned(word)
        room = self._room
        if len(ids) - len(self._before) <= room:
            ids += self._after
            return Tokens(ids, None, False)
        del ids[len(self._before) + room :]
        ids += self._after
        return Tokens(ids, None, True)

    def _learned(self, word: str) -> list[int]:
        encoding = self._tokenizer.encode(word, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if encoding.overflowing:  # the tokenizer truncates
            ids = [*ids, *(one for part in encoding.overflowing for one in part.ids)]
        if len(word) <= _LONGEST_WORD:
            if len(self._known) >= _MOST_WORDS:
                self._known.clear()
            self._known[word] = ids
        return ids


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
