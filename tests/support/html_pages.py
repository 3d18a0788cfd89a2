"""The HTML pages of reports, read by an independent parser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import html5lib

from reaugkd.runtime.report.page import MOST_BYTES


def parsed(page: str) -> Any:
    """The document by an independent parser that refuses every error of the HTML standard."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def checked(path: Path) -> tuple[Any, dict[str, Any]]:
    """The document and its JSON, after the checks that hold for every page."""
    page = path.read_text(encoding="utf-8")
    assert len(page.encode()) <= MOST_BYTES
    document = parsed(page)
    elements = list(document.iter())
    ids = [one.get("id") for one in elements if one.get("id")]
    assert len(ids) == len(set(ids))
    assert {one.get("href") for one in elements if one.get("href")} == {f"#{id_}" for id_ in ids if id_ != "data"}
    scripts = document.findall(".//script")
    assert [one.get("type") for one in scripts] == ["application/json", None]
    policy = document.find(".//meta[@http-equiv='Content-Security-Policy']").get("content")
    for kind, source in (("script", scripts[1].text), ("style", document.find(".//style").text)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for one in elements:  # nothing is loaded, and no style or script is in an attribute
        assert not {"src", "style", "srcset", "data", "action"} & set(one.attrib)
        assert not [name for name in one.attrib if str(name).startswith("on")]
    assert not re.search(r"url\(|@import|https?:", page.partition('<script type="application/json"')[0])
    for one in document.findall(".//table"):
        widths = {len(list(row)) for row in one.iter("tr")}
        assert len(widths) == 1
    return document, json.loads(scripts[0].text)


def section(document: Any, id_: str) -> str:
    return " ".join("".join(document.find(f".//section[@id='{id_}']").itertext()).split())


def cells(document: Any, id_: str, table: int = 0) -> list[list[str]]:
    found = document.findall(f".//section[@id='{id_}']//table")[table]
    return [["".join(cell.itertext()) for cell in row] for row in found.iter("tr")]
