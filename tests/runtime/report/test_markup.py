"""The markup against Python's own HTML parser: what is escaped comes back as it was."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import html5lib
from hypothesis import given
from hypothesis import strategies as st

from reaugkd.runtime.report.markup import FORBIDDEN, Column, Markup, joined, stranger, table, tag


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, attributes))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_any_text_stays_text(text: str, value: str) -> None:
    parser = _Texts()
    parser.feed(tag("p", text, class_=value))
    parser.close()
    assert parser.elements == [("p", [("class", FORBIDDEN.sub("\ufffd", value))])]
    assert parser.text == FORBIDDEN.sub("\ufffd", text)


@given(st.text())
def test_any_text_makes_a_valid_document(text: str) -> None:
    body = tag("body", table([Column("x")], [[stranger(text)], [text]]))
    page = f"<!DOCTYPE html>{tag('html', tag('head', tag('title', 'x')), body, lang='en')}"
    html5lib.HTMLParser(strict=True).parse(page)


def test_only_markup_is_not_escaped() -> None:
    assert tag("p", "<b>", Markup("<i></i>"), None) == "<p>&lt;b&gt;<i></i></p>"
    assert joined(["a", Markup("<br>"), "&"], " | ") == "a | <br> | &amp;"
    assert tag("meta", name="a", content='"') == '<meta name="a" content="&quot;">'
    assert tag("line", x1=1.0, y1=2 / 3, stroke_width=True, class_=None, hidden=False) == (
        '<line x1="1" y1="0.666667" stroke-width></line>'
    )
    assert html.unescape(stranger("<script>")) == "<bdi><script></bdi>"
