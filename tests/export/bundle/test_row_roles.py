"""Which rows are searched, which tune the blend and which join later."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.tiny_models import LABELS

from reaugkd.export.bundle.row_roles import Allocation, allocate
from reaugkd.export.onnx.quality import StudentOutputs
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.tuning.build_kb import KbRows
from reaugkd.runtime.data import Split

TRAIN = [f"train{n} words{n}" for n in range(50)]
HELDOUT = [f"held{n} out{n} row{n}" for n in range(20)]


def numbers_of(texts: list[str], width: int) -> np.ndarray:
    """Random numbers [n, width] that are a function of the text."""
    return np.array([np.random.default_rng(list(text.encode())).normal(size=width) for text in texts], np.float32)


def answers_to(texts: Any, _label: str = "") -> StudentOutputs:
    return StudentOutputs(numbers_of(list(texts), len(LABELS)), numbers_of(list(texts), 8))


def knowledge(texts: list[str], queries: np.ndarray | None, gold: bool) -> KbRows:
    labels = np.arange(len(texts)) % len(LABELS) if gold else np.full(len(texts), -1)
    teacher = numbers_of([f"teacher on {text}" for text in texts], len(LABELS))
    keys = numbers_of(texts, 8)
    return KbRows(texts, teacher, keys, keys if queries is None else queries, labels)


def split_of(texts: list[str]) -> Split:
    return Split(texts, None, None, "made", list(range(len(texts))))


SOURCE = cast(
    Any,
    SimpleNamespace(
        train=split_of(TRAIN),
        heldout=split_of(HELDOUT),
        of_train=lambda queries: knowledge(TRAIN, queries, gold=True),
        of_heldout=lambda queries: knowledge(HELDOUT, queries, gold=True),
        of_extra=lambda split, queries: knowledge(list(split.texts), queries, gold=False),
    ),
)


def allocated(extra: list[str], recipe: RetrievalRecipe | None = None) -> Allocation:
    given = split_of(extra) if extra else None
    return allocate(SOURCE, recipe or RetrievalRecipe(), given, answers_to, answers_to(HELDOUT))


def test_without_extra_rows_the_blend_is_tuned_on_the_heldout_rows() -> None:
    parts = allocated([])
    assert (parts.searched.inputs, parts.asking.inputs, parts.later.inputs) == (TRAIN, HELDOUT, HELDOUT)
    assert not len(allocated([], RetrievalRecipe(keep_heldout=False)).later)


@pytest.mark.parametrize("kept", [True, False])
def test_extra_rows_are_searched_and_only_heldout_rows_tune(kept: bool) -> None:
    """A phrase of a held-out row is added with it, or not at all."""
    new = [f"new{n} extra{n} text{n}" for n in range(1000)]
    relatives = [text.split(" ", 1)[1] for text in HELDOUT]
    parts = allocated([*new, *relatives], RetrievalRecipe(keep_heldout=kept))
    assert parts.searched.inputs == [*TRAIN, *new] and parts.asking.inputs == HELDOUT
    assert parts.later.inputs == ([*HELDOUT, *relatives] if kept else [])
    assert parts.asking.gold.tolist() == [n % len(LABELS) for n in range(len(HELDOUT))]
    assert (parts.searched.gold[len(TRAIN) :] == -1).all()


def test_rows_that_the_run_holds_are_left_out() -> None:
    parts = allocated([*TRAIN, *HELDOUT])
    assert (parts.searched.inputs, parts.asking.inputs) == (TRAIN, HELDOUT)
