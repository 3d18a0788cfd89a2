"""Retrieval-augmented distilled text classifiers for the CPU (ReAugKD).

The names below load on first use, so that ``import reaugkd`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import (
        BundleError,
        BundleIntegrityError,
        BundleVersionError,
        ColumnError,
        DataError,
        DependencyError,
        DistributedError,
        EditRefusedError,
        EmptyFileError,
        HubError,
        LabelError,
        ModelError,
        OutputExistsError,
        QualityError,
        ReaugkdError,
        RecipeError,
        StorageError,
        TextError,
        UsageError,
    )
    from .integrations.pipeline import pipeline
    from .integrations.scikit_learn import ReaugkdClassifier as ReaugkdClassifier
    from .kb.knowledge_base import KnowledgeBase
    from .runtime.decision.abstention_goal import Abstain
    from .runtime.editing.edit import Edit, Row
    from .runtime.inference.neighbours import Neighbour, Neighbours
    from .runtime.inference.prediction import Prediction
    from .runtime.labelling.review import LabelIssue, Review, review
    from .runtime.labelling.suggest import Suggestion, suggest
    from .runtime.monitoring.statistics import Stats
    from .runtime.runtime import Runtime

__version__ = "0.2.0"

__all__ = [
    "Abstain",
    "BundleError",
    "BundleIntegrityError",
    "BundleVersionError",
    "ColumnError",
    "DataError",
    "DependencyError",
    "DistributedError",
    "Edit",
    "EditRefusedError",
    "EmptyFileError",
    "HubError",
    "KnowledgeBase",
    "LabelError",
    "LabelIssue",
    "ModelError",
    "Neighbour",
    "Neighbours",
    "OutputExistsError",
    "Prediction",
    "QualityError",
    "ReaugkdError",
    "RecipeError",
    "Review",
    "Row",
    "Runtime",
    "Stats",
    "StorageError",
    "Suggestion",
    "TextError",
    "UsageError",
    "__version__",
    "pipeline",
    "review",
    "suggest",
]

# Not in __all__, so that `from reaugkd import *` works without scikit-learn.
_OF_EXTRAS = {"ReaugkdClassifier": ".integrations.scikit_learn"}

_HOMES = {
    **_OF_EXTRAS,
    "Abstain": ".runtime.decision.abstention_goal",
    "Edit": ".runtime.editing.edit",
    "KnowledgeBase": ".kb.knowledge_base",
    "LabelIssue": ".runtime.labelling.review",
    "Neighbour": ".runtime.inference.neighbours",
    "Neighbours": ".runtime.inference.neighbours",
    "Prediction": ".runtime.inference.prediction",
    "Review": ".runtime.labelling.review",
    "Row": ".runtime.editing.edit",
    "Runtime": ".runtime.runtime",
    "Stats": ".runtime.monitoring.statistics",
    "Suggestion": ".runtime.labelling.suggest",
    "pipeline": ".integrations.pipeline",
    "review": ".runtime.labelling.review",
    "suggest": ".runtime.labelling.suggest",
}


def __getattr__(name: str) -> object:
    if name not in __all__ and name not in _OF_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_OF_EXTRAS])
