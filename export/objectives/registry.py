"""Registry of loss terms: makes the weighted sum that a recipe's ``[[objectives]]`` tables describe.

A term's settings in the recipe are its constructor's keyword arguments, each with a default. To add a term, this file
does not change: write a new file in this folder and import it in `__init__.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from ...errors import RecipeError
from ..recipe import ObjectiveRecipe, Recipe
from .base import Distillation, DistillationStep, Objective

_REGISTRY: dict[str, Callable[..., Objective]] = {}


_C = TypeVar("_C", bound=Callable[..., Objective])


def register(name: str) -> Callable[[_C], _C]:
    """Register an objective by the name that recipes use (class decorator)."""

    def add(kind: _C) -> _C:
        _REGISTRY[name] = kind
        return kind

    return add


def names() -> list[str]:
    """Return the names of all objectives, sorted."""
    return sorted(_REGISTRY)


def require_setting(condition: bool, name: str, found: object, expected: str) -> None:
    """Check a setting of an objective.

    Args:
        condition: whether the setting is in range.
        name: of objective and setting.
        found: its value.
        expected: the range.

    Raises:
        RecipeError: ``condition`` is false.
    """
    if not condition:
        raise RecipeError(f"{name} is out of range", found=found, expected=expected)


@dataclass(frozen=True)
class WeightedSum:
    """The loss of a recipe: the weighted sum of its terms.

    Args:
        terms: pairs of weight and objective.
    """

    terms: tuple[tuple[float, Objective], ...]

    @property
    def needs(self) -> frozenset[str]:
        """Union of the terms' needs."""
        return frozenset().union(*(objective.needs for _, objective in self.terms))

    @property
    def attention(self) -> str | None:
        """Attention implementation for `load_encoder`: ``eager`` if maps are needed, else None."""
        return "eager" if "attentions" in self.needs else None

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Check that the encoders and the recipe fit every term; see `Objective.check`."""
        for _, objective in self.terms:
            objective.check(student, teacher, recipe)

    def begin(self, distillation: Distillation) -> None:
        """Prepare every term."""
        for _, objective in self.terms:
            objective.begin(distillation)

    def after_step(self) -> None:
        """Update every term after a step of the optimizer."""
        for _, objective in self.terms:
            objective.after_step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the terms in order."""
        return {"terms": [objective.state_dict() for _, objective in self.terms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states of the terms."""
        for (_, objective), own in zip(self.terms, state["terms"], strict=True):
            objective.load_state_dict(own)

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss of a batch, a scalar."""
        total = step.student_logits.new_zeros(())
        for weight, objective in self.terms:
            total = total + weight * objective(step)
        return total


def build(recipes: Sequence[ObjectiveRecipe]) -> WeightedSum:
    """Make the loss that a recipe's ``[[objectives]]`` tables describe.

    Raises:
        RecipeError: an unknown name or setting, or a setting of the wrong type or out of range.
    """
    return WeightedSum(tuple((recipe.weight, _build_one(recipe)) for recipe in recipes))


def _build_one(recipe: ObjectiveRecipe) -> Objective:
    if recipe.name not in _REGISTRY:
        raise RecipeError("unknown objective", found=recipe.name, expected=f"one of {', '.join(names())}")
    kind = _REGISTRY[recipe.name]
    known = inspect.signature(kind).parameters
    if unknown := set(recipe.settings) - set(known):
        raise RecipeError(
            f"objective {recipe.name!r} has no such setting",
            found=", ".join(sorted(unknown)),
            expected=f"one of {', '.join(sorted(known))}" if known else "none",
        )
    settings = {
        name: _setting(recipe.name, name, value, known[name].default) for name, value in recipe.settings.items()
    }
    return kind(**settings)


def _setting(objective: str, name: str, value: Any, default: Any) -> Any:
    """Check the type of a setting against its default; a list of whole numbers from TOML becomes a tuple.

    Raises:
        RecipeError: the type is wrong, or the number is not finite.
    """
    kind = type(default)
    if kind is tuple:
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif type(value) is kind or (kind is float and type(value) is int):
        require_setting(not isinstance(value, float) or math.isfinite(value), f"{objective}: {name}", value, "finite")
        return value
    raise RecipeError(
        f"objective {objective!r}: {name} has the wrong type",
        found=value,
        expected="a list of whole numbers" if kind is tuple else f"a value of type {kind.__name__}",
    )
