"""Add typing errors to texts, to test robustness.

A text's errors depend only on the text and the seed: the same text has the same errors in any data set, at any
position, alone or as either half of a pair. One in four of the words with four letters or more gets one error, and at
least one such word of every text. There are four kinds of error, equally likely: a neighbouring key, a missing letter,
a doubled letter, two letters swapped. Words of up to three letters are left alone: they carry the meaning ("on", "off",
"not"), and an error often turns one into another word. The first letter of a word is also left alone: people seldom
mistype it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from ...errors import UsageError
from ..inference.text.inputs import MAX_TEXT_CHARS, Text

RATE = 0.25
"""Share of the words of at least ``MIN_LETTERS`` letters that get an error."""

MIN_LETTERS = 4

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The letters of a QWERTY keyboard; every row sits about half a key to the right of the one above."""

_LETTERS = re.compile(rf"[^\W\d_]{{{MIN_LETTERS},}}")

_Input = TypeVar("_Input", str, tuple[str, str], Text)


def add_typos(inputs: Sequence[_Input], seed: int = 0, rate: float = RATE) -> list[_Input]:
    """Return the texts with typing errors, in the same order.

    Args:
        inputs: texts, or pairs of texts; both halves of a pair get errors.
        seed: chooses the errors.
        rate: share of the words of at least ``MIN_LETTERS`` letters that get an error, 0 to 1. It is rounded to whole
            words, at least one; 0 changes nothing.

    Returns:
        As many texts or pairs. A text without a word of ``MIN_LETTERS`` letters is unchanged. No text becomes empty.

    Raises:
        UsageError: ``rate`` is not between 0 and 1.
    """
    if not 0 <= rate <= 1:
        raise UsageError("the rate of typing errors is out of range", found=rate, expected="0 to 1")
    return [
        _with_typos(item, seed, rate)
        if isinstance(item, str)
        else (_with_typos(item[0], seed, rate), _with_typos(item[1], seed, rate))
        for item in inputs
    ]


def _with_typos(text: str, seed: int, rate: float) -> str:
    words = [word.span() for word in _LETTERS.finditer(text) if word.group().isalpha()]
    if not words or not rate:
        return text
    # Seeded with bytes: a text may hold a lone surrogate, which strict UTF-8 refuses. It is refused later, by row.
    rng = Random(f"{seed}:{text}".encode("utf-8", "surrogatepass"))
    count = max(1, round(rate * len(words)))
    chosen = set(sorted(range(len(words)), key=lambda _: rng.random())[:count])
    parts, done = [], 0
    for number, (start, end) in enumerate(words):
        if number in chosen:
            parts += [text[done:start], _mistyped(text[start:end], rng)]
            done = end
    return "".join([*parts, text[done:]])[:MAX_TEXT_CHARS]


def _mistyped(word: str, rng: Random) -> str:
    """Return the word with one error; the result always differs from the word."""
    at = 1 + int(rng.random() * (len(word) - 1))
    make_error = _ERRORS[int(rng.random() * len(_ERRORS))]
    return make_error(word, at, rng)


def _neighbour(word: str, at: int, rng: Random) -> str:
    near = _NEIGHBOURS.get(word[at])
    if near is None:  # the letter is not on this keyboard
        return _double(word, at, rng)
    return word[:at] + near[int(rng.random() * len(near))] + word[at + 1 :]


def _drop(word: str, at: int, _rng: Random) -> str:
    return word[:at] + word[at + 1 :]


def _double(word: str, at: int, _rng: Random) -> str:
    return word[: at + 1] + word[at:]


def _swap(word: str, at: int, rng: Random) -> str:
    at = min(at, len(word) - 2)
    if word[at] == word[at + 1]:  # swapping two equal letters changes nothing: drop one
        return _drop(word, at, rng)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


_ERRORS = (_neighbour, _drop, _double, _swap)


def _neighbours() -> dict[str, str]:
    """Map each letter, in both cases, to the letters on the adjacent keys, in a fixed order."""
    near: dict[str, str] = {}
    for y, row in enumerate(KEYBOARD):
        for x, letter in enumerate(row):
            spots = ((y, x - 1), (y, x + 1), (y - 1, x), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x))
            found = [KEYBOARD[b][a] for b, a in spots if 0 <= b < len(KEYBOARD) and 0 <= a < len(KEYBOARD[b])]
            near[letter] = "".join(found)
            near[letter.upper()] = near[letter].upper()
    return near


_NEIGHBOURS = _neighbours()
