"""Check cells: convert them to texts and labels, or report why they cannot be used."""

from __future__ import annotations

import math

from ...errors import LabelError, TextError
from ..inference.inputs import MAX_TEXT_CHARS

# What pandas and numpy can write for a missing value.
_MISSING_WORDS = frozenset({"nan", "NaN", "NAN", "<NA>"})


def check_text(value: object, source: str, row: int, column: str | None = None) -> str:
    """Return a cell as a text.

    Args:
        value: the cell.
        source: the file's name, for the message.
        row: 1-based, for the message.
        column: the column's name, for the message; None for plain text, in which ``nan`` is a word.

    Raises:
        TextError: the cell is missing, not a string, blank, over ``MAX_TEXT_CHARS`` characters, or not valid Unicode.
    """
    if isinstance(value, str) and _is_text(value) and (column is None or value not in _MISSING_WORDS):
        return value
    message, found, expected, remedy = _wrong_text(value)
    raise TextError(message, path=source, row=row, column=column, found=found, expected=expected, remedy=remedy)


def _is_text(value: str) -> bool:
    return 0 < len(value) <= MAX_TEXT_CHARS and not value.isspace() and is_unicode(value)


def _wrong_text(value: object) -> tuple[str, str | None, str, str]:
    if is_missing(value):
        return "the text is missing", _shown(value), "a text", "Fill the cell, or drop the row."
    if not isinstance(value, str):
        return (
            "the bytes are not UTF-8" if isinstance(value, bytes) else "the text is not a string",
            f"{type(value).__name__} {value!r}",
            "a string",
            "Name the column of the texts with --text-column, or convert the values to strings.",
        )
    if not value or value.isspace():
        return "the text is empty", None, "at least one visible character", "Fill the cell, or drop the row."
    if len(value) > MAX_TEXT_CHARS:
        shorten_it = "Shorten it: models read only the first few hundred words."
        return "the text is too long", f"{len(value):,} characters", f"at most {MAX_TEXT_CHARS:,}", shorten_it
    return "the text holds an unpaired surrogate", None, "valid Unicode", "Repair the escapes (\\ud800 to \\udfff)."


def check_label(value: object, source: str, row: int, column: str | None = None) -> str:
    """Return a cell as a label: strings unchanged, whole numbers in decimal, booleans as ``true`` and ``false``.

    A whole number in floating point (``1.0``, as in a column with missing cells) becomes the label ``"1"``.

    Raises:
        LabelError: the cell is missing, blank, or of a type that cannot name a class.
    """
    label = _as_label(value)
    if label is not None:
        return label
    if is_missing(value) or (isinstance(value, str) and (not value or value.isspace())):
        message, found, remedy = "the label is missing", _shown(value), "Fill the cell, or drop the row."
    else:
        message, found = "the value is not a class label", f"{type(value).__name__} {value!r}"
        remedy = "Name the label column with --label-column, or convert the values to classes."
    raise LabelError(
        message,
        path=source,
        row=row,
        column=column,
        found=found,
        expected="a string, a whole number or a boolean",
        remedy=remedy,
    )


def _as_label(value: object) -> str | None:
    if isinstance(value, str):
        blank = not value or value.isspace() or value in _MISSING_WORDS
        return value if not blank and is_unicode(value) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def is_missing(value: object) -> bool:
    """Whether a cell means "no value": null, NaN, or what pandas and numpy write for it."""
    if isinstance(value, str):
        return value in _MISSING_WORDS
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)


def is_unicode(text: str) -> bool:
    """Whether a string can be written as UTF-8; JSON escapes can name an unpaired surrogate, which cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
