"""Checks of a study's TOML tables: unknown keys are refused, and errors name the key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ...errors import RecipeError
from ...runtime.evaluation.metrics import METRICS

REMEDY = "Correct the study."

AVERAGE = "average"
"""Name of the column for the average over the tasks."""

# A cell's file is named TASK.RECIPE.SEED, so a name must not contain a dot.
_NAME = re.compile(r"\w[\w+-]*")

_T = TypeVar("_T")
_MISSING: Any = object()


class TomlTable:
    """A TOML table with known keys.

    Args:
        where: prefix of keys in error messages.
        values: the table.
        *known: known keys, several in one text.

    Raises:
        RecipeError: an unknown key.
    """

    def __init__(self, where: str, values: Mapping[str, Any], *known: str) -> None:
        self.where, self.values = where, values
        names = {name for words in known for name in words.split()}
        for name in sorted(values.keys() - names):
            expected = f"one of {', '.join(sorted(names))}"
            raise RecipeError(f"unknown key {where + name!r}", expected=expected, remedy="Correct the key.")

    def take(self, name: str, check: Callable[[Any, str], _T], default: Any = _MISSING) -> _T:
        """Return the checked value of a key.

        Args:
            name: the key.
            check: checks the value.
            default: value of a missing key; without a default, the key is required.

        Raises:
            RecipeError: the value is invalid, or the key is missing and has no default.
        """
        if name not in self.values:
            if default is _MISSING:
                raise RecipeError(f"{self.where + name!r} is missing", remedy=REMEDY)
            return default  # type: ignore[no-any-return]
        return check(self.values[name], self.where + name)


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """Check a value.

    Args:
        condition: whether the value is valid.
        name: the key.
        found: the value.
        expected: a description of valid values.

    Raises:
        RecipeError: ``condition`` is false.
    """
    if not condition:
        raise RecipeError(f"{name} is out of range", found=found, expected=expected, remedy=REMEDY)


def a_text(value: Any, name: str) -> str:
    """Check for a non-empty text."""
    require(isinstance(value, str) and bool(value), name, value, "a text")
    return str(value)


def a_name(value: Any, name: str) -> str:
    """Check for a name that can be part of a file name and is not ``AVERAGE``."""
    fits = isinstance(value, str) and _NAME.fullmatch(value) is not None and value != AVERAGE
    require(fits, name, value, f"letters, digits, '_', '-' and '+': it is part of file names; not {AVERAGE!r}")
    return str(value)


def some_texts(value: Any, name: str) -> list[str]:
    """Check for a list of at least one text."""
    require(isinstance(value, list) and bool(value), name, value, "a list of texts, at least one")
    return [a_text(item, name) for item in value]


def some_seeds(value: Any, name: str) -> tuple[int, ...]:
    """Check for a list of at least one seed, all different."""
    numbers = isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)
    require(numbers and len(set(value)) == len(value), name, value, "a list of different whole numbers, at least one")
    return tuple(value)


def some_layers(value: Any, name: str) -> tuple[int, ...]:
    """Check for a list of layer numbers; the recipe checks that the model has them."""
    numbers = isinstance(value, list) and all(type(item) is int for item in value)
    require(numbers, name, value, "a list of numbers")
    return tuple(value)


def a_limit(value: Any, name: str) -> int:
    """Check for a number of rows."""
    require(type(value) is int and value >= 2, name, value, "2 or more")
    return int(value)


def a_switch(value: Any, name: str) -> bool:
    """Check for true or false."""
    require(type(value) is bool, name, value, "true or false")
    return bool(value)


def a_metric(value: Any, name: str) -> str:
    """Check for a metric that can be a task's main metric: higher is better."""
    names = [metric.name for metric in METRICS.values() if metric.higher_is_better]
    require(value in names, name, value, f"one of {', '.join(names)}")
    return str(value)


def a_split(value: Any, name: str) -> str:
    """Check for a split that is not trained on."""
    require(value in ("dev", "test"), name, value, "dev or test")
    return str(value)


def a_table(value: Any, name: str) -> Mapping[str, Any]:
    """Check for a table of any content."""
    require(isinstance(value, Mapping), name, value, "a table")
    return value  # type: ignore[no-any-return]


def some_tables(value: Any, name: str) -> list[Mapping[str, Any]]:
    """Check for an array of at least one table."""
    tables = isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
    require(tables, name, value, f"[[{name}]] tables, at least one")
    return list(value)
