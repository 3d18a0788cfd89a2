"""The page: one HTML file that needs no other file and no network.

Its Content-Security-Policy names the style and the script by their hashes and allows nothing else. So a text of the
data could run nothing and load nothing even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files

from ..benchmark.bench import BenchReport
from . import measured, sections
from .collect import WRONG_ROWS
from .contents import Report
from .markup import FORBIDDEN, Markup, joined, tag
from .provenance import machine_facts, now

MOST_BYTES = 1_000_000
"""The size that no page exceeds: lists become shorter until it fits."""

_SECTIONS: dict[str, tuple[str, Callable[[Report], Markup]]] = {
    "verdict": ("Verdict", sections.verdict),
    "systems": ("Systems", sections.systems),
    "classes": ("Classes", sections.classes),
    "confusions": ("Confused classes", sections.confusions),
    "calibration": ("Probabilities", measured.calibration),
    "abstention": ("Abstention", measured.abstention),
    "errors": ("Wrong answers", sections.wrong_rows),
    "labels": ("Wrong labels in the knowledge base", sections.wrong_labels),
    "latency": ("Time and size", lambda report: measured.time_and_size(report.latency, report.bytes)),
    "provenance": ("Provenance", measured.provenance),
}
_FILTERED = "errors"

_IN_SCRIPT = re.compile(f"[<>&\u2028\u2029]|{FORBIDDEN.pattern}")


def render(report: Report) -> str:
    """The report as an HTML document of at most `MOST_BYTES`."""
    return fitting(lambda limit: _report_page(_limited(report, limit)), WRONG_ROWS)


def fitting(make: Callable[[int], str], limit: int) -> str:
    """A page of at most `MOST_BYTES`, if one with empty lists is.

    Args:
        make: makes the page with lists of at most so many entries.
        limit: the most entries.
    """
    while True:
        page = make(limit)
        size = len(page.encode())
        if size <= MOST_BYTES or not limit:
            return page
        limit = int(limit * min(0.95, MOST_BYTES / size))


def _limited(report: Report, limit: int) -> Report:
    labels = replace(report.wrong_labels, shown=report.wrong_labels.shown[:limit])
    return replace(report, wrong=report.wrong[:limit], classes=report.classes[:limit], wrong_labels=labels)


def _report_page(report: Report) -> str:
    evaluation = report.evaluation
    subtitle = f"{evaluation.split}: {evaluation.n:,} rows of {evaluation.data}, {report.made}"
    parts = {id_: (name, make(report)) for id_, (name, make) in _SECTIONS.items()}
    return document(f"Report on {report.bundle}", subtitle, parts, report.to_json())


def render_bench(bench: BenchReport, bundle: str, command: str) -> str:
    """The figures of `bench` as an HTML document.

    Args:
        bench: the figures.
        bundle: the bundle's path.
        command: the command line.
    """
    made = now()
    facts = {"bundle": bundle, "command": command, "made": made, **machine_facts(bench.host)}
    parts = {
        "latency": ("Time and size", measured.time_and_size(bench, bench.bytes)),
        "provenance": ("Provenance", measured.facts_table(facts)),
    }
    return document(f"Benchmark of {bundle}", f"{bench.setting['source']}, {made}", parts, bench.to_json())


def document(title: str, subtitle: str, parts: Mapping[str, tuple[str, Markup]], data: object) -> str:
    """A page: one HTML file that needs no other file and no network.

    Args:
        title: its title.
        subtitle: the line below.
        parts: id -> title and content of each section.
        data: JSON values that the page holds for programs.
    """
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    links = [tag("li", tag("a", name, href=f"#{id_}")) for id_, (name, _) in parts.items()]
    written = [
        tag("section", tag("h2", name), content, id=id_, class_="filtered" if id_ == _FILTERED else None)
        for id_, (name, content) in parts.items()
    ]
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("p", subtitle, class_="soft")),
        tag("nav", tag("ul", *links), aria_label="Sections"),
        tag("main", *written),
        tag("script", _json(data), type="application/json", id="data"),
        tag("script", Markup(script)),
    )
    return joined([Markup("<!DOCTYPE html>\n"), tag("html", head, body, lang="en"), Markup("\n")])


def _json(data: object) -> Markup:
    """JSON in a form that cannot end the script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(_IN_SCRIPT.sub(_as_escape, text))


def _as_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
