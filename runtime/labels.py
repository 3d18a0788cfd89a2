"""Names of labels: one spelling of numbers and booleans, the known names, and names that are nearly equal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_BOOLEANS = frozenset({"true", "false"})
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s_.,:;/-]+(?=\d)")
_SEPARATORS = re.compile(r"[\s_.,:;/'\"()\[\]{}!?&|-]+")


class LabelNames:
    """The known names of labels, and how other spellings of them are read.

    Blanks at both ends are not part of a label, unless a known name has them. ``1`` and ``1.0`` are one number,
    ``True`` and ``true`` are one boolean: such a spelling is read as the known name of the same value, if there is one
    such name only.

    Args:
        names: the known names, each once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._same: dict[str, str | None] = {}
        for name in self.names:
            spelling = _plain(name)
            self._same[spelling] = None if spelling in self._same else name
        self._numbers = bool(self.names) and all(_WHOLE.fullmatch(name) for name in self.names)

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> LabelNames:
        """The names in a column of labels.

        If every label is a whole number (``-1``, ``2``, ``3.0``) or every label is a boolean, the names are the values
        (``-1``, ``2``, ``3``; ``false``, ``true``). Otherwise the names are the labels as they are written, so that
        ``1.1`` and ``1.10`` of a list of versions stay two labels.
        """
        found = {text.strip() for text in texts}
        whole = all(_WHOLE.fullmatch(text) for text in found)
        if whole or all(text.casefold() in _BOOLEANS for text in found):
            found = {_plain(text) for text in found}
        return cls(found)

    def read(self, text: str) -> str:
        """Return the name that a text means: a known one, or an unknown one in the spelling of the known ones."""
        if text in self.names:  # also with blanks, which names in bundles of earlier versions may have
            return text
        text = text.strip()
        if text in self.names:
            return text
        spelling = _plain(text)
        known = self._same.get(spelling)
        if known is not None:
            return known
        return spelling if self._numbers and _WHOLE.fullmatch(text) else text


def _plain(text: str) -> str:
    """Return a whole number without ``.0``, a boolean in lower case, another text without blanks at its ends."""
    text = text.strip()
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        return "0" if whole[1] == "-0" else whole[1]
    return text.casefold() if text.casefold() in _BOOLEANS else text


def near_equal(counts: Mapping[str, int]) -> list[list[str]]:
    """Find names that differ only in case, blanks, punctuation, Unicode form, or in how a number is written.

    Args:
        counts: name -> its number of rows.

    Returns:
        The groups of such names; the name with most rows first, in each group and among the groups.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups.setdefault(_folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def near_equal_to(new: Collection[str], names: Iterable[str]) -> list[list[str]]:
    """Find the groups of near-equal names, as `near_equal` does, that hold a new name.

    Args:
        new: the new names.
        names: all names, with or without the new ones.
    """
    groups = near_equal(dict.fromkeys([*names, *new], 1)) if new else []
    return [group for group in groups if not set(group).isdisjoint(new)]


def _folded(name: str) -> str:
    """Return the part of a name that near-equal names have in common."""
    text = _plain("".join(mark for mark in unicodedata.normalize("NFKC", name) if unicodedata.category(mark) != "Cf"))
    # A minus sign and what separates two numbers are not punctuation: -1 is not 1, and 1.1 is not 11.
    text = _BETWEEN_DIGITS.sub("\0", _MINUS.sub("\1", text.casefold()))
    return _SEPARATORS.sub("", text) or name
