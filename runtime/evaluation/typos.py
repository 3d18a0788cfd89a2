"""A shift to test under: the same texts with typing errors, as hurried thumbs make them.

A text's errors depend on the text and the seed alone: the same text has the same errors in any data set, at any place,
alone or as either half of a pair. One word in four of those with four letters or more gets one error (and at least one
such word of every text): the key beside the right one, a letter left out, a letter twice, or two letters the wrong way
round, each as often as the others. Short words stay whole: they carry the meaning ("on", "off", "not"), and an error
makes another word of them. The first letter of a word stays too, since it is seldom the wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from ...errors import UsageError
from ..inference.inputs import MAX_TEXT_CHARS, Text

RATE = 0.25
"""Share of the words of at least ``MIN_LETTERS`` letters that get an error."""

MIN_LETTERS = 4

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The letters of a QWERTY keyboard; every row sits about half a key to the right of the one above."""

_LETTERS = re.compile(rf"[^\W\d_]{{{MIN_LETTERS},}}")

_Input = TypeVar("_Input", str, tuple[str, str], Text)


def shifted(inputs: Sequence[_Input], seed: int = 0, rate: float = RATE) -> list[_Input]:
    """The texts with typing errors, in their order.

    Args:
        inputs: texts, or pairs of texts, of which both halves get errors.
        seed: another one places other errors.
        rate: share of the long words that get an error, 0 to 1, rounded to whole words but not to none; 0 changes
            nothing.

    Returns:
        as many texts or pairs. A text without a word of ``MIN_LETTERS`` letters is as it was; none becomes empty.

    Raises:
        UsageError: ``rate`` is no share.
    """
    if not 0 <= rate <= 1:
        raise UsageError("the rate of typing errors is no share", found=rate, expected="0 to 1")
    return [
        _shifted(item, seed, rate)
        if isinstance(item, str)
        else (_shifted(item[0], seed, rate), _shifted(item[1], seed, rate))
        for item in inputs
    ]


def _shifted(text: str, seed: int, rate: float) -> str:
    words = [word.span() for word in _LETTERS.finditer(text) if word.group().isalpha()]
    if not words or not rate:
        return text
    # Of bytes, since a text may hold what UTF-8 does not (a lone surrogate); such a text is refused later, by its name.
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
    """The word with one error, never the word itself."""
    at = 1 + int(rng.random() * (len(word) - 1))
    slip = _SLIPS[int(rng.random() * len(_SLIPS))]
    return slip(word, at, rng)


def _neighbour(word: str, at: int, rng: Random) -> str:
    near = _NEIGHBOURS.get(word[at])
    if near is None:  # a letter that this keyboard lacks
        return _double(word, at, rng)
    return word[:at] + near[int(rng.random() * len(near))] + word[at + 1 :]


def _drop(word: str, at: int, _rng: Random) -> str:
    return word[:at] + word[at + 1 :]


def _double(word: str, at: int, _rng: Random) -> str:
    return word[: at + 1] + word[at:]


def _swap(word: str, at: int, rng: Random) -> str:
    at = min(at, len(word) - 2)
    if word[at] == word[at + 1]:  # goes unseen: of a double letter, one is lost instead
        return _drop(word, at, rng)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


_SLIPS = (_neighbour, _drop, _double, _swap)


def _neighbours() -> dict[str, str]:
    """For each letter, small or capital, those on the keys that touch its own, in a fixed order."""
    near: dict[str, str] = {}
    for y, row in enumerate(KEYBOARD):
        for x, letter in enumerate(row):
            spots = ((y, x - 1), (y, x + 1), (y - 1, x), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x))
            found = [KEYBOARD[b][a] for b, a in spots if 0 <= b < len(KEYBOARD) and 0 <= a < len(KEYBOARD[b])]
            near[letter] = "".join(found)
            near[letter.upper()] = near[letter].upper()
    return near


_NEIGHBOURS = _neighbours()
