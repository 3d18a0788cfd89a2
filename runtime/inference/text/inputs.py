"""Input validation: a text or a pair of texts, each of 1 to 1,000,000 characters."""

from __future__ import annotations

from ....errors import TextError

Text = str | tuple[str, str]
"""One text, or a pair of texts."""

MAX_TEXT_CHARS = 1_000_000


def checked_input(item: object, text_pair: bool) -> tuple[str, str | None]:
    """Check a text or a pair, and return the text and its second text (None for a single text).

    Args:
        item: a string, or a pair of strings.
        text_pair: whether the model was trained on pairs.

    Raises:
        TextError: a text is empty or longer than `MAX_TEXT_CHARS`; the input is not a text; or it is a pair and the
            model reads single texts (or the reverse).
    """
    if isinstance(item, str):
        if text_pair:
            raise TextError("this model reads pairs of texts", found="a single text", expected="(text, text)")
        return _checked(item), None
    if isinstance(item, tuple | list) and len(item) == 2:
        if not text_pair:
            raise TextError("this model reads single texts", found="a pair", expected="one text")
        return _checked(item[0]), _checked(item[1])
    raise TextError("the input is not a text", found=_kind(item), expected="a pair of texts" if text_pair else "a text")


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise TextError("the input is not a text", found=_kind(text), expected="a text")
    if len(text) > MAX_TEXT_CHARS:
        raise TextError("the text is too long", found=f"{len(text)} characters", expected=f"at most {MAX_TEXT_CHARS}")
    if not text or text.isspace():
        raise TextError("the text is empty", found=repr(text[:20]), expected="at least one character other than space")
    return text


def _kind(item: object) -> str:
    if isinstance(item, tuple | list):
        return f"{len(item)} values"
    return "nothing" if item is None else type(item).__name__
