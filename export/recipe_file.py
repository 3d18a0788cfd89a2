"""Read recipes from TOML or nested tables, and replace single fields."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ..errors import RecipeError
from .recipe import FitRecipe, ObjectiveRecipe, Recipe, RetrievalRecipe, StudentRecipe, require


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from TOML; missing keys have their defaults.

    Raises:
        RecipeError: the file is missing, is not TOML, or has an unknown key or value.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError("the recipe cannot be read", path=path, found=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("the recipe is not valid TOML", path=path, found=str(error)) from error
    try:
        _refuse_removed(tables.get("retrieval"))
        return recipe_from_dict(tables)
    except RecipeError as error:
        raise RecipeError(
            error.message, path=path, found=error.found, expected=error.expected, remedy=error.remedy
        ) from None


def recipe_from_dict(tables: Mapping[str, Any]) -> Recipe:
    """Make a recipe from nested tables, as in TOML or `Recipe.as_dict`; `REMOVED` keys of finished runs are ignored.

    Raises:
        RecipeError: an unknown key, or a value out of range.
    """
    return _build(Recipe, tables, "")


def retrieval_from_dict(table: Mapping[str, Any]) -> RetrievalRecipe:
    """Make a RetrievalRecipe from a recipe's ``[retrieval]`` table.

    Raises:
        RecipeError: same as `recipe_from_dict`, or a `REMOVED` key.
    """
    _refuse_removed(table)
    return _build(RetrievalRecipe, table, "retrieval.")


def override(recipe: Recipe, **changes: Any) -> Recipe:
    """Replace nested fields of a recipe, e.g. ``student__fit__epochs=3``; None leaves a field unchanged."""
    for name, value in changes.items():
        if value is not None:
            recipe = _replace_nested(recipe, name.split("__"), value)
    return recipe


def with_start(student: StudentRecipe, layers: tuple[int, ...] | None, model: str | None) -> StudentRecipe:
    """Replace the initial weights in the student's recipe; unchanged if both arguments are None.

    Args:
        student: the student's recipe.
        layers: layers of the teacher, 0-based.
        model: hub id or folder of another model.

    Raises:
        RecipeError: layers and a model are given.
    """
    if layers is None and model is None:
        return student
    return replace(student, layers=layers or (), model=model or "")


_T = TypeVar("_T")


def _replace_nested(target: _T, path: list[str], value: Any) -> _T:
    if len(path) > 1:
        value = _replace_nested(getattr(target, path[0]), path[1:], value)
    return replace(target, **{path[0]: value})  # type: ignore[type-var]


REMOVED = ("cautious", "one_se_rule", "folds", "labels", "label_temperatures", "weight")
"""Keys of ``[retrieval]`` in earlier versions; finished runs have them in run.json."""

_REMOVED_VALUES = {"labels": ("cross_fitted", "teacher"), "keys": ("both", "teacher")}


def _refuse_removed(retrieval: Any) -> None:
    for name in REMOVED if isinstance(retrieval, Mapping) else ():
        if name in retrieval:
            raise RecipeError(
                f"the key 'retrieval.{name}' was removed",
                found=retrieval[name],
                expected="the labels of one teacher at temperature 1, and one weight that is tuned for every run",
                remedy="Delete the key.",
            )


def _refuse_removed_value(name: str, value: Any) -> None:
    removed, instead = _REMOVED_VALUES.get(name, (None, None))
    if removed is not None and value == removed:
        raise RecipeError(
            f"the value {removed!r} of 'retrieval.{name}' was removed",
            found=value,
            expected=repr(instead),
            remedy=f"Write {instead!r}, in a recipe or in the run.json of a finished run: no new training is needed.",
        )


def _build(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in table.items():
        if kind is RetrievalRecipe:
            _refuse_removed_value(name, value)
            if name in REMOVED:
                continue
        if name not in known:
            raise RecipeError(
                f"unknown key {where + name!r}",
                expected=f"one of {', '.join(sorted(known))}",
                remedy="Correct the key.",
            )
        values[name] = _convert(hints[name], value, where + name)
    # Missing fields take the defaults of this dataclass, not those of the field in its parent.
    return kind(**values)


def _convert(hint: Any, value: Any, name: str) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        require(isinstance(value, Mapping), name, value, "a table")
        return _build(hint, _with_parent_defaults(hint, name, value), name + ".")
    if name == "objectives":
        require(isinstance(value, list | tuple), name, value, "[[objectives]] tables")
        return tuple(_objective(item) for item in value)
    if options := get_args(hint) if getattr(hint, "__origin__", None) is Literal else ():
        require(value in options, name, value, f"one of {', '.join(options)}")
        return value
    if getattr(hint, "__origin__", None) is tuple:
        item = get_args(hint)[0]
        numbers = isinstance(value, list | tuple) and all(type(number) in (int, item) for number in value)
        require(numbers, name, value, "a list of numbers")
        return tuple(map(item, value))
    if hint is float and type(value) is int:
        return float(value)
    require(type(value) is hint, name, value, f"a value of type {hint.__name__}")
    return value


def _with_parent_defaults(hint: Any, name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge a table with the defaults of its parent: the student's fit has other defaults than the teacher's."""
    if hint is FitRecipe and name == "student.fit":
        return {**asdict(StudentRecipe().fit), **value}
    return value


def _objective(table: Any) -> ObjectiveRecipe:
    require(
        isinstance(table, Mapping) and isinstance(table.get("name"), str), "objectives", table, "a table with a name"
    )
    # In TOML, an objective's settings are beside its name; as_dict nests them.
    nested = table.get("settings", {})
    require(isinstance(nested, Mapping), "objectives.settings", nested, "a table")
    settings = {name: value for name, value in table.items() if name not in ("name", "weight", "settings")}
    weight = table.get("weight", 1.0)
    require(type(weight) in (int, float), "objectives.weight", weight, "a number")
    return ObjectiveRecipe(table["name"], float(weight), {**nested, **settings})
