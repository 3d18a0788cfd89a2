"""Check cells: convert them to texts and labels, or report why they cannot be used."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from ...errors import LabelError, TextError
from ..inference.text.inputs import MAX_TEXT_CHARS

# What pandas and numpy can write for a missing value.
_MISSING_WORDS = frozenset({"nan", "NaN", "NAN", "<NA>"})

# What is between the brackets of a list of one label, and of a list of several.
_ONE = re.compile(r"""'([^'\\]*)'|"([^"\\]*)"|(-?\d+(?:\.\d*)?|True|true|False|false|)""")
_SEVERAL = re.compile(r"""'.*'|".*"|-?\d[\d\s.,-]*""", re.DOTALL)


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
    """Return a cell as the text of a label, as `optional_label` does.

    Raises:
        LabelError: same as `optional_label`, or the cell is missing or blank.
    """
    label = optional_label(value, source, row, column)
    if label is None:
        raise LabelError(
            "the label is missing",
            path=source,
            row=row,
            column=column,
            found=_shown(value),
            expected="a string, a number or a boolean",
            remedy="Fill the cell, or drop the row.",
        )
    return label


def optional_label(value: object, source: str, row: int, column: str | None = None) -> str | None:
    """Return a cell as the text of a label, without blanks at its ends, or None if the cell is missing or blank.

    A number or boolean becomes the text that pandas writes to CSV: ``1``, ``1.0``, ``True``. A list of one label is
    that label, also as text (``['news']``). `LabelNames` then gives all spellings of a label one name.

    Raises:
        LabelError: the cell is of a type that cannot name a class, or a list of several labels.
    """  # noqa: DOC501
    value = _without_list(value)
    if is_missing(value):
        return None
    if isinstance(value, str) and is_unicode(value) and not _is_list(value):
        return value or None
    if isinstance(value, int) or (isinstance(value, float | Decimal) and math.isfinite(value)):
        return str(value)
    raise _wrong_label(value, source, row, column)


def _wrong_label(value: object, source: str, row: int, column: str | None) -> LabelError:
    several = isinstance(value, list) or _is_list(value)
    return LabelError(
        "the row has several labels" if several else "the value is not a class label",
        path=source,
        row=row,
        column=column,
        found=str(value) if several else f"{type(value).__name__} {value!r}",
        expected="one label" if several else "a string, a number or a boolean",
        remedy="Keep one label in each row."
        if several
        else "Name the label column with --label-column, or convert the values to classes.",
    )


def _without_list(value: object) -> object:
    """Return the element of a list of one, None for an empty list, or another value; a text without its blanks."""
    if isinstance(value, str):
        value = value.strip()
        one = _ONE.fullmatch(_between_brackets(value))
        return value if one is None else next((part.strip() for part in one.groups() if part), None)
    if isinstance(value, list) and len(value) < 2:
        return _without_list(value[0]) if value else None
    return value


def _is_list(value: object) -> bool:
    """Whether a text is a list of several labels, also as numpy writes it (``['a' 'b']``)."""
    return isinstance(value, str) and _SEVERAL.fullmatch(_between_brackets(value)) is not None


def _between_brackets(text: str) -> str:
    """Return what is between the brackets around a text, or a bracket if there are none."""
    return text[1:-1].strip() if text.startswith("[") and text.endswith("]") else "["


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
