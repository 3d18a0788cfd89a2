"""The page of a study: a valid document with the cells of the tables, the figures, and what the recipes differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.html_pages import checked
from support.study_cells import make_result, write_study

from reaugkd.export.study import tables
from reaugkd.export.study.command import NewPage, StudyJob, study
from reaugkd.export.study.compare import Analysis
from reaugkd.export.study.page import render_study
from reaugkd.export.study.plan import Plan, load_plan
from reaugkd.export.study.results import CellNotes
from reaugkd.runtime.report.page import MOST_BYTES
from reaugkd.runtime.report.plots import intervals

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<img src=x onerror=alert(1)>\"'</script>"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return load_plan(write_study(tmp_path / "study"))


def of(plan: Plan) -> tuple[Analysis, dict[str, CellNotes]]:
    keys = [(one.task.name, one.recipe, one.seed) for one in plan.cells()]
    notes = {one.name: CellNotes("5e" * 32, "1f" * 32, 12.4, 6) for one in plan.cells()}
    return Analysis(plan, {key: make_result(*key) for key in keys}), notes


def cells(table: Any) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


def table_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(header), *map(list, rows)]


def test_the_tables_figures_and_recipes_are_those_of_the_study(plan: Plan, tmp_path: Path) -> None:
    analysis, notes = of(plan)
    recipes = {name: recipe.as_dict() for name, recipe in plan.recipes.items()}
    page = tmp_path / "page.html"
    page.write_text(render_study(analysis, notes, {"recipes": recipes, "variants": []}, "reaugkd study x"), "utf-8")
    document, inside = checked(page)
    shown = [cells(one) for one in document.findall(".//table")]
    sections = [*tables.main_sections(analysis), *tables.more_sections(analysis)]
    for section in sections:
        for part in section.parts:
            if isinstance(part, tables.MarkdownTable):
                assert table_of(part.header, part.rows) in shown, section.title
    assert [one["title"] for one in inside["sections"]] == [one.title for one in sections]
    titles = [one.text for one in document.findall(".//h2")]
    assert titles == [*(one.title for one in sections), "Recipes", "Provenance"]
    figures = document.findall(f".//{SVG}svg")
    assert len(figures) == 3 + 2 * 3  # means of two tasks and their average; gains of both recipes
    means = [one.text for one in figures[0].iter(f"{SVG}title") if "," in str(one.text)]
    spread = analysis.spread("one", tables.Who("better", tables.BLEND))
    assert spread is not None and spread.sd is not None
    assert f"better, {tables.BLEND}: {100 * spread.mean:.2f}, {100 * (spread.mean - spread.sd):.2f}" in "\n".join(means)
    differing = next(one for one in shown if one[0] == ["setting", "kd", "better"])
    assert ["max_length", str(recipes["kd"]["max_length"]), "32"] in differing
    assert "seed" not in [row[0] for row in differing]
    assert ["one.kd.0", "12", "5e" * 8, "1f" * 8] in next(one for one in shown if one[0][0] == "cell")


def test_hostile_names_stay_text_and_a_large_study_fits(plan: Plan, tmp_path: Path) -> None:
    analysis, notes = of(replace(plan, teacher=HOSTILE))
    description = {"recipes": {"kd": {"a": HOSTILE}, "better": {"a": 1}}, "variants": [{"name": HOSTILE}]}
    page = tmp_path / "page.html"
    page.write_text(render_study(analysis, notes, description, HOSTILE), "utf-8")
    document, _ = checked(page)
    assert not document.findall(".//img") and HOSTILE in "".join(document.find(".//body").itertext())
    many = {f"{'n' * 60}.{at}": CellNotes("5e" * 32, "1f" * 32, 1.0, 6) for at in range(30_000)}
    assert sum(map(len, many)) > MOST_BYTES
    page.write_text(render_study(analysis, many, description, "x"), "utf-8")
    checked(page)


def test_a_plot_without_a_spread_has_an_axis() -> None:
    for value in (0.0, 0.5, 1.0):
        assert ">points<" in (made := intervals("x", {"a": {"b": (value, value, value)}})) and "nan" not in made


def test_a_study_without_a_finished_cell_leaves_no_page(plan: Plan, tmp_path: Path) -> None:
    job = StudyJob(plan, tmp_path / "out", lambda *_: make_result("one", "kd", 0), report_only=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("{}")
    with pytest.raises(Exception, match="no cell of this study is finished"):
        study(job, print, print, NewPage(tmp_path / "page.html", "x"))
    assert not (tmp_path / "page.html").exists()
