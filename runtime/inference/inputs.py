"""What may be asked: one text, or a pair of texts, neither empty nor endless."""

from __future__ import annotations

from ...errors import TextError

Text = str | tuple[str, str]
"""One text, or a pair of texts."""

MAX_TEXT_CHARS = 1_000_000


def checked_input(item: object, text_pair: bool) -> tuple[str, str | None]:
    """The text and its partner (None for single texts), checked.

    Args:
        item: a string, or a pair of strings.
        text_pair: whether the model was trained on pairs.

    Raises:
        TextError: empty, longer than `MAX_TEXT_CHARS`, no text at all, or a pair where a single text belongs (and the
            reverse).
    """
    if isinstance(item, str):
        if text_pair:
            raise TextError("this model reads pairs of texts", found="a single text", expected="(text, text)")
        return _checked(item), None
    if isinstance(item, tuple | list) and len(item) == 2:
        if not text_pair:
            raise TextError("this model reads single texts", found="a pair", expected="one text")
        return _checked(item[0]), _checked(item[1])
    raise TextError("this is no text", found=_kind(item), expected="a pair of texts" if text_pair else "a text")


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise TextError("this is no text", found=_kind(text), expected="a text")
    if len(text) > MAX_TEXT_CHARS:
        raise TextError("the text is too long", found=f"{len(text)} characters", expected=f"at most {MAX_TEXT_CHARS}")
    if not text or text.isspace():
        raise TextError("the text is empty", found=repr(text[:20]), expected="at least one character that is no space")
    return text


def _kind(item: object) -> str:
    if isinstance(item, tuple | list):
        return f"{len(item)} values"
    return "nothing" if item is None else type(item).__name__
