"""The terms of the student's loss, as a registry that a recipe chooses from by name.

A new objective is one file here: a subclass of Objective with ``__call__(step) -> scalar tensor``, registered by name,
whose constructor's keyword arguments, each with a default, are its settings in the recipe's ``[[objectives]]`` table.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import RecipeError
from ..encoder import EncoderClassifier
from ..fit import Forward
from ..recipe import ObjectiveRecipe, Precision, Recipe

if TYPE_CHECKING:
    from ..distill import Targets


@dataclass(frozen=True)
class Distillation:
    """What an objective may look at before the first step; everything on the device of the fit.

    Args:
        student: as it starts.
        teacher: frozen and in evaluation mode; None unless an objective needs ``"teacher"`` or ``"attentions"``.
        ask_teacher: the same as a function, in the fit's precision; wrap it in ``torch.no_grad``.
        targets: what the teacher said of all rows.
        seed: the run's; whatever an objective draws is a function of it and of the step's number.
        precision: the fit's.
    """

    student: EncoderClassifier
    teacher: nn.Module | None
    ask_teacher: Forward | None
    targets: Targets
    seed: int
    precision: Precision


@dataclass(frozen=True)
class DistillationStep:
    """What an objective sees of one batch of n rows, c labels, d components and t tokens.

    Args:
        number: of the step, from 0.
        rows: [n], row numbers into ``Distillation.targets``.
        inputs: the tokens, each [n, t].
        student: the student being fitted, for another pass on inputs of the objective's own.
        student_logits: [n, c].
        student_embedding: [n, d], L2-normalised: the query.
        student_projection: [n, d], the same before its normalisation.
        student_attentions: [n, heads, t, t] a layer; none unless an objective needs ``"attentions"``.
        teacher_logits: [n, c].
        teacher_embedding: [n, hidden].
        teacher_attentions: as the student's; the heads may be others.
        keys: [n, d], L2-normalised: the projected teacher embeddings.
        labels: [n], int64.
    """

    number: int
    rows: Tensor
    inputs: Mapping[str, Any]
    student: Forward
    student_logits: Tensor
    student_embedding: Tensor
    student_projection: Tensor
    student_attentions: tuple[Tensor, ...]
    teacher_logits: Tensor
    teacher_embedding: Tensor
    teacher_attentions: tuple[Tensor, ...]
    keys: Tensor
    labels: Tensor


class Objective:
    """One term of the loss. A subclass implements ``__call__``, and the hooks if it has something to keep.

    Attributes:
        needs: what must be computed for it: ``"teacher"`` (the live teacher) or ``"attentions"`` (of both models).
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Raise RecipeError where the encoders or the recipe do not fit it; called once, before any training."""

    def begin(self, distillation: Distillation) -> None:
        """Called once before the first step, also of a resumed fit."""

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term's mean over the batch, a scalar."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called when the optimizer has moved the student."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs: tensors, numbers and containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave; called after ``begin``."""


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
        """What any of the terms needs."""
        return frozenset().union(*(objective.needs for _, objective in self.terms))

    @property
    def attention(self) -> str | None:
        """How both models must compute attention, as `load_encoder` takes it: only the plain way shows its maps."""
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


from . import (  # noqa: E402, F401  (each registers itself)
    attention,
    compress,
    compress_2q,
    hard_labels,
    mixkd,
    relation,
    scaffold,
    sea,
    soft_labels,
)
