"""The shipped recipes load and have the documented defaults."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from support.paths import ROOT

from reaugkd.export import objectives
from reaugkd.export.recipe import Recipe
from reaugkd.export.recipe_file import load_recipe

FOLDER = ROOT / "recipes"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_its_objectives_build(path: Path) -> None:
    recipe = load_recipe(path)
    assert len(objectives.build(recipe.objectives).terms) == len(recipe.objectives)


def test_the_annotated_recipe_is_the_default_in_every_key() -> None:
    shown, default = load_recipe(FOLDER / "reaugkd.toml"), Recipe()
    assert objectives.build(shown.objectives) == objectives.build(default.objectives)
    without = {name: value for name, value in asdict(shown).items() if name != "objectives"}
    assert without == {name: value for name, value in asdict(default).items() if name != "objectives"}
