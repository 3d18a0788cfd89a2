"""The results of a study as one HTML page, in the form of `reaugkd report`: tables, figures, recipes, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...runtime.benchmark.environment import host_facts
from ...runtime.report.markup import Column, Markup, joined, table, tag
from ...runtime.report.measured import details, facts_table
from ...runtime.report.page import document, fitting
from ...runtime.report.plots import intervals
from ...runtime.report.provenance import machine_facts, now
from .compare import BLEND, STUDENT, Analysis
from .plots import gains, spreads
from .plots import title as title_of
from .results import CellNotes
from .tables import MarkdownTable, Section, facts, main_sections, more_sections
from .toml_checks import AVERAGE

_MOST_ROWS = 2000  # of a table; fewer where the page would be too large
_PLAN_CHARS = 100_000


def render_study(
    analysis: Analysis, notes: Mapping[str, CellNotes], description: Mapping[str, Any], command: str
) -> str:
    """The study as an HTML document of at most `MOST_BYTES`.

    Args:
        analysis: the finished cells.
        notes: cell -> its hashes and duration.
        description: the plan with all recipes, as in plan.json.
        command: the command line.
    """
    plan, made = analysis.plan, now()
    sections = [*main_sections(analysis), *more_sections(analysis)]
    figures = {"Means": _means(analysis), sections[2].title: _gains(analysis)}
    recipes = _recipes(description["recipes"], description["variants"])
    where = {"command": command, "made": made, "teacher": plan.teacher}
    where |= {f"data of {task.name}": f"{task.data}, seeds {', '.join(map(str, task.seeds))}" for task in plan.tasks}
    where |= {f"of this page: {name}": value for name, value in machine_facts(host_facts()).items()}
    cells = [[name, f"{one.seconds:.0f}", one.settings[:16], one.inputs[:16]] for name, one in notes.items()]
    heads = ["cell", "seconds", "hash of settings", "hash of data and models"]
    whole = json.dumps(description, indent=1, ensure_ascii=False, default=str)
    plan_shown = details("The plan", tag("pre", whole if len(whole) <= _PLAN_CHARS else f"{whole[:_PLAN_CHARS]}…"))

    def page(limit: int) -> str:
        parts = {f"s{at}": (one.title, _section(one, figures.get(one.title), limit)) for at, one in enumerate(sections)}
        name = f"The cells (the first {limit:,})" if len(cells) > limit else "The cells"
        shown = details(name, _table(heads, cells[:limit]))
        provenance = joined([facts_table(where), shown, plan_shown])
        parts |= {"recipes": ("Recipes", recipes), "provenance": ("Provenance", provenance)}
        data = [_data(one, limit) for one in sections]
        title = f"Study of {len(plan.recipes)} recipes on {len(plan.tasks)} tasks"
        return document(title, f"{facts(analysis)} {made}", parts, {"sections": data})

    return fitting(page, _MOST_ROWS)


def _section(section: Section, figure: Markup | None, limit: int) -> Markup:
    return joined([*(_part(part, limit) for part in section.parts), figure])


def _part(part: str, limit: int) -> Markup:
    if not isinstance(part, MarkdownTable):
        return tag("p", part)
    left_out = len(part.rows) - limit
    note = tag("p", f"{left_out:,} further rows are in report.md.", class_="soft") if left_out > 0 else None
    return joined([_table(part.header, part.rows[:limit]), note])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table whose columns of numbers stand to the right."""
    rows = list(rows)
    numbers = [bool(rows) and all(row[at][:1] in "+-0123456789[" for row in rows) for at in range(len(header))]
    columns = [Column(name, "n" if number else None) for name, number in zip(header, numbers, strict=True)]
    return table(columns, rows, sortable=True)


def _data(section: Section, limit: int) -> dict[str, object]:
    tables = [part for part in section.parts if isinstance(part, MarkdownTable)]
    return {
        "title": section.title,
        "tables": [{"header": list(one.header), "rows": [list(row) for row in one.rows[:limit]]} for one in tables],
    }


def _means(analysis: Analysis) -> Markup:
    panels = {
        task: {system: spreads(analysis, task, system) for system in (STUDENT, BLEND)}
        for task in (*analysis.tasks, AVERAGE)
    }
    return _figures(analysis, panels, "mean and standard deviation over the seeds")


def _gains(analysis: Analysis) -> Markup:
    parts = []
    for recipe in analysis.plan.recipes:
        panels = {task: {recipe: gains(analysis, task, recipe)} for task in (*analysis.tasks, AVERAGE)}
        parts += [tag("h3", recipe), _figures(analysis, panels, "gain of retrieval, with the interval over rows", True)]
    return joined(parts)


def _figures(
    analysis: Analysis,
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    what: str,
    zero: bool = False,
) -> Markup:
    """One plot a task, without those that have no value."""
    made = []
    for task, lines in panels.items():
        if any(lines.values()):
            caption = f"{title_of(analysis, task)}: {what}"
            made.append(tag("figure", intervals(caption, lines, zero), tag("figcaption", caption)))
    return tag("div", *made, class_="plots")


def _recipes(recipes: Mapping[str, Mapping[str, Any]], variants: Sequence[Mapping[str, Any]]) -> Markup:
    """What the recipes differ in, and the settings of the retrieval variants."""
    flat = {name: _flat(recipe) for name, recipe in recipes.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    shown = {key: [settings.get(key, "-") for settings in flat.values()] for key in keys}
    rows = [[key, *values] for key, values in shown.items() if len(set(values)) > 1]
    parts = [tag("p", f"Settings that differ, of {len(keys):,}; the others are in the plan below.")]
    parts.append(_table(["setting", *recipes], rows) if rows else tag("p", "The recipes have the same settings."))
    if variants:
        settings = [[str(one["name"]), _text({k: v for k, v in one.items() if k != "name"})] for one in variants]
        parts += [tag("h3", "Retrieval variants"), _table(["variant", "settings"], settings)]
    return joined(parts)


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, one in value.items():
        found |= _flat(one, f"{before}{key}.") if isinstance(one, Mapping) else {f"{before}{key}": _text(one)}
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
