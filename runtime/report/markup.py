"""HTML and SVG as text, escaped by construction: only `Markup` is written as it is, every other string is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_VOID = {"meta"}  # elements without an end tag

# Characters that an HTML document must not have: controls, surrogates and noncharacters.
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | None
"""A child of an element: `Markup` as it is, other text escaped, None nothing."""


def escaped(content: Content) -> str:
    """The content as HTML; a character that HTML does not allow becomes the replacement character."""
    if isinstance(content, Markup):
        return content
    return "" if content is None else html.escape(FORBIDDEN.sub("\ufffd", content))


def tag(name: str, /, *content: Content, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        name: its name.
        content: its children.
        attributes: ``class_`` is ``class``, and other underscores are hyphens. True is an attribute without a value;
            None and False are left out. Numbers have at most two decimals.
    """
    pairs = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{pairs}>" + ("" if name in _VOID else "".join(map(escaped, content)) + f"</{name}>"))


def _attribute(key: str, value: str | float | bool) -> str:
    key = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {key}" if value else ""
    return f' {key}="{escaped(value) if isinstance(value, str) else f"{value:.6g}"}"'


def joined(parts: Iterable[Content], between: str = "") -> Markup:
    """Several contents, one after the other."""
    return Markup(escaped(between).join(map(escaped, parts)))


def stranger(text: str) -> Markup:
    """A text or label of the data: its writing direction does not change what stands around it."""
    return tag("bdi", text)


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and the class of its cells in the style: ``n`` for numbers."""

    title: str
    kind: str | None = "n"


def table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], sortable: bool = False) -> Markup:
    """A table; the script makes the columns of a sortable one sort.

    Args:
        columns: the columns.
        rows: the cells, as many per row as columns.
        sortable: whether the reader can sort it.
    """
    head = [tag("th", one.title, scope="col", class_=one.kind) for one in columns]
    classes = [one.kind for one in columns]
    body = [tag("tr", *(tag("td", cell, class_=name) for cell, name in zip(row, classes, strict=True))) for row in rows]
    made = tag(
        "table",
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
        class_="sortable" if sortable and len(body) > 1 else None,
    )
    return tag("div", made, class_="wide")
