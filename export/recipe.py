"""The recipe of a run: all settings of the training stage, as frozen dataclasses (recipe_file.py reads them)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..errors import RecipeError

Pooling = Literal["auto", "mean", "cls", "last"]
Precision = Literal["auto", "fp32", "bf16"]
KeyMethod = Literal["supcon", "pca"]
Query = Literal["layers", "distilled"]
Keys = Literal["student", "teacher"]


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """Check a setting.

    Args:
        condition: whether the setting is in range.
        name: of the setting.
        found: its value.
        expected: the range.

    Raises:
        RecipeError: ``condition`` is false.
    """
    if not condition:
        raise RecipeError(
            f"{name} is out of range", found=found, expected=expected, remedy="Correct the recipe or option."
        )


def require_finite(settings: Any) -> None:
    """Check that every float of a dataclass is finite.

    Raises:
        RecipeError: one is not.
    """
    for item in fields(settings):
        value = getattr(settings, item.name)
        require(not isinstance(value, float) or math.isfinite(value), item.name, value, "a finite number")


@dataclass(frozen=True)
class FitRecipe:
    """Settings of one fit by AdamW with linear warm-up and decay.

    Args:
        epochs: passes over the rows, at least 0.
        batch_size: rows per step.
        learning_rate: peak learning rate of the encoder.
        head_learning_rate: peak learning rate of the heads, both for random initial weights and for the teacher's.
        warmup: share of the steps used for warm-up.
        weight_decay: decay of matrices; biases and norms have none.
        clip: largest norm of the gradient.
        freeze_word_embeddings: keep the pretrained word embeddings. They hold most of a small encoder's parameters
            and take most of the optimiser's time, and a small data set contains few of the words.
    """

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    freeze_word_embeddings: bool = True

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more (the relational loss compares rows)")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(self.head_learning_rate > 0, "head_learning_rate", self.head_learning_rate, "above 0")
        require(0 <= self.warmup < 1, "warmup", self.warmup, "a share in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(self.clip > 0, "clip", self.clip, "above 0")


@dataclass(frozen=True)
class TeacherRecipe:
    """Settings of the teacher.

    Args:
        pooling: how token states become one vector: their ``mean``, the state of the first token (``cls``) or of the
            ``last``; ``auto`` for the sentence-transformers model's own, else last for a decoder, else mean.
        dropout: on the pooled vector, while training.
        labels: names of the outputs of a classifier that was fine-tuned elsewhere, in order; empty for its own names.
        fit: the fine-tuning.
    """

    pooling: Pooling = "auto"
    dropout: float = 0.1
    labels: tuple[str, ...] = ()
    fit: FitRecipe = FitRecipe()

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share in [0, 1)")


@dataclass(frozen=True)
class ProjectionRecipe:
    """Settings of the projection head, which maps the frozen teacher's embeddings to keys.

    Args:
        method: ``supcon``, fitted by supervised contrastive loss (ReAugKD, step 1), or ``pca``, the principal
            components of the embeddings (SEA), which uses embedding_dim only.
        embedding_dim: components of a key and of the student's query; for ``pca`` at most the teacher's hidden size.
        temperature: tau of the supervised contrastive loss.
        epochs: passes over the cached embeddings; they take seconds.
        batch_size: smallest number of rows per step; a step has less than twice as many. All rows if there are fewer.
            The positives of a row are the other rows of its class in the batch.
        learning_rate: learning rate of AdamW, whose weight decay is 0.01.
    """

    method: KeyMethod = "supcon"
    embedding_dim: int = 128
    temperature: float = 0.07
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.embedding_dim >= 2, "embedding_dim", self.embedding_dim, "2 or more")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        require(self.epochs >= 0, "epochs", self.epochs, "0 or more")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more (the loss compares rows)")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")


@dataclass(frozen=True)
class StudentRecipe:
    """Settings of the student: its initial weights and its distillation.

    Args:
        layers: the teacher's layers to start from, 0-based, ascending; empty for every second layer.
        model: a model to start from instead (hub id or folder), or empty.
        pooling: as the teacher's, for another model; a student that starts from the teacher's layers has its pooling.
        dropout: on the pooled vector, while training.
        fit: the distillation.
    """

    layers: tuple[int, ...] = ()
    model: str = ""
    pooling: Pooling = "auto"
    dropout: float = 0.1
    fit: FitRecipe = FitRecipe(epochs=5, learning_rate=2e-4)

    def __post_init__(self) -> None:
        if self.layers and self.model:
            raise RecipeError(
                "a student starts from the teacher's layers or from another model, not both",
                found=f"layers {list(self.layers)} and model {self.model!r}",
                remedy="Give --student-layers or --student, not both.",
            )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share in [0, 1)")
        ordered = list(self.layers) == sorted(set(self.layers)) and all(layer >= 0 for layer in self.layers)
        require(ordered, "layers", list(self.layers), "ascending 0-based layer numbers")


@dataclass(frozen=True)
class ObjectiveRecipe:
    """One term of the student's loss.

    Args:
        name: in the registry of objectives.
        weight: factor of the term, 0 or more.
        settings: keyword arguments of the objective.
    """

    name: str
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 <= self.weight < math.inf, "objectives.weight", self.weight, "a finite number, 0 or more")


@dataclass(frozen=True)
class RetrievalRecipe:
    """Settings of the knowledge base and the blend. They can be changed at export, without training.

    Args:
        query: the student's query: ``layers``, a head on all of its layers that is fitted after the distillation
            (`layer_query`), or ``distilled``, the head that the objectives trained.
        keys: embeddings of the rows: ``student``, as the exported model computes them, or ``teacher`` (the paper). The
            query ``layers`` needs the student's keys.
        gold_shares: shares of the gold label in the soft labels that the tuner tries.
        keep_heldout: add the held-out rows to the knowledge base after the blend is tuned.
    """

    query: Query = "layers"
    keys: Keys = "student"
    gold_shares: tuple[float, ...] = (0.0, 0.5, 1.0)
    keep_heldout: bool = True

    def __post_init__(self) -> None:
        shares = self.gold_shares
        require(bool(shares) and all(0 <= s <= 1 for s in shares), "gold_shares", list(shares), "shares in [0, 1]")
        if self.query == "layers" and self.keys != "student":
            raise RecipeError(
                "the query 'layers' cannot search the teacher's keys, which are in another space",
                found=f"query 'layers', keys {self.keys!r}",
                expected="keys 'student', or query 'distilled'",
                remedy="Correct the recipe or option.",
            )


# The loss of ReAugKD (soft-label cross-entropy and relational KL), with a term for hard labels added.
REAUGKD = (
    ObjectiveRecipe("soft_labels", 1.0),
    ObjectiveRecipe("hard_labels", 0.5),
    ObjectiveRecipe("relation", 1.0),
)


@dataclass(frozen=True)
class Recipe:
    """All settings of a run; only these, the data and the teacher decide its result.

    Args:
        seed: seed of initial weights, order of rows, dropout and random choices of objectives; the splits have fixed
            seeds.
        max_length: largest number of tokens of a text; longer texts are truncated.
        heldout_share: share of the train rows to hold out. Teacher and student are not trained on them; the blend is
            tuned and the int8 student is checked on them.
        heldout_max: largest number of held-out rows, approximately, because related rows stay together.
        precision: ``bf16`` mixed precision, ``fp32``, or ``auto``: bf16 if the processor is faster at it.
        teacher: settings of the teacher.
        projection: settings of the keys.
        student: settings of the student.
        objectives: the terms of the student's loss, at least one.
        retrieval: settings of the knowledge base and the blend.
    """

    seed: int = 0
    max_length: int = 128
    heldout_share: float = 0.1
    heldout_max: int = 6000
    precision: Precision = "auto"
    teacher: TeacherRecipe = TeacherRecipe()
    projection: ProjectionRecipe = ProjectionRecipe()
    student: StudentRecipe = StudentRecipe()
    objectives: tuple[ObjectiveRecipe, ...] = REAUGKD
    retrieval: RetrievalRecipe = RetrievalRecipe()

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "a number in [0, 2^63)")
        require(self.max_length >= 8, "max_length", self.max_length, "8 or more")
        require(0 < self.heldout_share < 0.5, "heldout_share", self.heldout_share, "a share in (0, 0.5)")
        require(self.heldout_max >= 1, "heldout_max", self.heldout_max, "1 or more")
        require(bool(self.objectives), "objectives", [], "at least one [[objectives]] table")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values."""
        return asdict(self)
