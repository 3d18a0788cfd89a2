"""The registry of loss terms: a recipe's ``[[objectives]]`` tables become their weighted sum.

A term's settings in the recipe are its constructor's keyword arguments, each with a default.
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
    """Class decorator: make an objective known to recipes as ``name``."""

    def add(kind: _C) -> _C:
        _REGISTRY[name] = kind
        return kind

    return add


def names() -> list[str]:
    """Every objective a recipe may name."""
    return sorted(_REGISTRY)


def require_setting(condition: bool, name: str, found: object, expected: str) -> None:
    """For an objective's own check of its settings: RecipeError unless ``condition`` holds."""
    if not condition:
        raise RecipeError(f"{name} is out of range", found=found, expected=expected)


@dataclass(frozen=True)
class WeightedSum:
    """The whole loss: sum of weight times term."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def needs(self) -> frozenset[str]:
        """The union of the terms' needs."""
        return frozenset().union(*(objective.needs for _, objective in self.terms))

    @property
    def attention(self) -> str | None:
        """The attention implementation for `load_encoder`: only ``eager`` returns attention maps."""
        return "eager" if "attentions" in self.needs else None

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Let every term look at the encoders and the recipe."""
        for _, objective in self.terms:
            objective.check(student, teacher, recipe)

    def begin(self, distillation: Distillation) -> None:
        """Let every term prepare."""
        for _, objective in self.terms:
            objective.begin(distillation)

    def after_step(self) -> None:
        """Tell every term that the student has moved."""
        for _, objective in self.terms:
            objective.after_step()

    def state_dict(self) -> dict[str, Any]:
        """The states of the terms, in their order."""
        return {"terms": [objective.state_dict() for _, objective in self.terms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hand every term its state."""
        for (_, objective), own in zip(self.terms, state["terms"], strict=True):
            objective.load_state_dict(own)

    def __call__(self, step: DistillationStep) -> Tensor:
        """The loss of a batch, a scalar."""
        total = step.student_logits.new_zeros(())
        for weight, objective in self.terms:
            total = total + weight * objective(step)
        return total


def build(recipes: Sequence[ObjectiveRecipe]) -> WeightedSum:
    """The loss that a recipe's ``[[objectives]]`` tables describe.

    Raises:
        RecipeError: an unknown name, or a setting that the objective does not have.
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
    """The value, of its default's type; where that is a tuple, of whole numbers, TOML gives a list."""
    wanted = type(default)
    if wanted is tuple:
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif type(value) is wanted or (wanted is float and type(value) is int):
        require_setting(not isinstance(value, float) or math.isfinite(value), f"{objective}: {name}", value, "finite")
        return value
    raise RecipeError(
        f"objective {objective!r}: {name} is of another type",
        found=value,
        expected="a list of whole numbers" if wanted is tuple else f"a value of type {wanted.__name__}",
    )
