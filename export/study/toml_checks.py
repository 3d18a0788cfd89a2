"""Reading the tables of a study: known keys only, each value of its kind, and an error that names the key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from ...errors import RecipeError

Metric = Literal["accuracy", "mcc"]

REMEDY = "Correct the study."

AVERAGE = "average"
"""The column of the tables that stands for all tasks."""

# A cell's file is named TASK.RECIPE.SEED, so no name may hold a point.
_NAME = re.compile(r"\w[\w+-]*")

_T = TypeVar("_T")
_MISSING: Any = object()


class Table:
    """A TOML table whose keys are known; ``where`` stands before them in messages."""

    def __init__(self, where: str, values: Mapping[str, Any], *known: str) -> None:
        self.where, self.values = where, values
        names = {name for words in known for name in words.split()}
        for name in sorted(values.keys() - names):
            expected = f"one of {', '.join(sorted(names))}"
            raise RecipeError(f"unknown key {where + name!r}", expected=expected, remedy="Correct the key.")

    def take(self, name: str, check: Callable[[Any, str], _T], default: Any = _MISSING) -> _T:
        """The checked value of a key, or its default; without one the key must be there."""
        if name not in self.values:
            if default is _MISSING:
                raise RecipeError(f"{self.where + name!r} is missing", remedy=REMEDY)
            return default  # type: ignore[no-any-return]
        return check(self.values[name], self.where + name)


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """RecipeError unless ``condition`` holds."""
    if not condition:
        raise RecipeError(f"{name} is out of range", found=found, expected=expected, remedy=REMEDY)


def a_text(value: Any, name: str) -> str:
    """A text that is not empty."""
    require(isinstance(value, str) and bool(value), name, value, "a text")
    return str(value)


def a_name(value: Any, name: str) -> str:
    """A name that a file can be named after and that no column of the tables has."""
    fits = isinstance(value, str) and _NAME.fullmatch(value) is not None and value != AVERAGE
    require(fits, name, value, f"letters, digits, '_', '-' and '+', since files are named after it; not {AVERAGE!r}")
    return str(value)


def some_texts(value: Any, name: str) -> list[str]:
    """Texts, at least one."""
    require(isinstance(value, list) and bool(value), name, value, "a list of texts, at least one")
    return [a_text(item, name) for item in value]


def some_seeds(value: Any, name: str) -> tuple[int, ...]:
    """Different seeds, at least one."""
    numbers = isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)
    require(numbers and len(set(value)) == len(value), name, value, "a list of different whole numbers, at least one")
    return tuple(value)


def some_layers(value: Any, name: str) -> tuple[int, ...]:
    """Layer numbers; whether a model has them is for the recipe to say."""
    numbers = isinstance(value, list) and all(type(item) is int for item in value)
    require(numbers, name, value, "a list of numbers")
    return tuple(value)


def a_limit(value: Any, name: str) -> int:
    """A number of rows."""
    require(type(value) is int and value >= 2, name, value, "2 or more")
    return int(value)


def a_switch(value: Any, name: str) -> bool:
    """True or false."""
    require(type(value) is bool, name, value, "true or false")
    return bool(value)


def a_metric(value: Any, name: str) -> Metric:
    """The metric that a task's tables show first."""
    require(value in ("accuracy", "mcc"), name, value, "accuracy or mcc")
    return value  # type: ignore[no-any-return]


def a_split(value: Any, name: str) -> str:
    """A split that nothing is trained on."""
    require(value in ("dev", "test"), name, value, "dev or test")
    return str(value)


def a_table(value: Any, name: str) -> Mapping[str, Any]:
    """A table, not looked into."""
    require(isinstance(value, Mapping), name, value, "a table")
    return value  # type: ignore[no-any-return]


def some_tables(value: Any, name: str) -> list[Mapping[str, Any]]:
    """An array of tables, at least one."""
    tables = isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    require(tables, name, value, f"[[{name}]] tables, at least one")
    return list(value)
