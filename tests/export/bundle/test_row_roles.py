"""Row roles, and pseudo-labelled validation rows among many extra rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.tiny_models import LABELS

from reaugkd.export.bundle import row_roles as allocation
from reaugkd.export.bundle.row_roles import FEWEST_EXTRA, MOST_PSEUDO_LABELLED, Allocation, allocate
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
        of_train=lambda queries, recipe: knowledge(TRAIN, queries, gold=True),
        of_heldout=lambda queries: knowledge(HELDOUT, queries, gold=True),
        of_extra=lambda split, queries: knowledge(list(split.texts), queries, gold=False),
    ),
)


def allocated(extra: list[str], recipe: RetrievalRecipe | None = None) -> Allocation:
    given = split_of(extra) if extra else None
    return allocate(SOURCE, recipe or RetrievalRecipe(), given, answers_to, answers_to(HELDOUT))


def many(count: int = 1000) -> list[str]:
    return [f"new{n} extra{n} text{n}" for n in range(count)]


def test_without_extra_rows_the_blend_is_tuned_on_the_heldout_rows() -> None:
    parts = allocated([])
    assert (parts.searched.inputs, parts.asking.inputs, parts.later.inputs) == (TRAIN, HELDOUT, HELDOUT)
    assert not len(allocated([], RetrievalRecipe(keep_heldout=False)).later)


def test_few_extra_rows_are_all_searched() -> None:
    few = many(FEWEST_EXTRA - 1)
    parts = allocated(few)
    assert (parts.searched.inputs, parts.asking.inputs, parts.later.inputs) == ([*TRAIN, *few], HELDOUT, HELDOUT)


@pytest.mark.parametrize("kept", [True, False])
def test_a_fifth_of_many_are_pseudo_labelled(kept: bool) -> None:
    new = many()
    parts = allocated(new, RetrievalRecipe(keep_heldout=kept))
    pseudo_labelled = list(parts.asking.inputs[len(HELDOUT) :])
    assert len(pseudo_labelled) == 200 and set(pseudo_labelled) < set(new)
    assert parts.asking.inputs[: len(HELDOUT)] == HELDOUT
    assert set(parts.searched.inputs) == {*TRAIN, *new} - set(pseudo_labelled)
    assert parts.later.inputs == [*(HELDOUT if kept else []), *pseudo_labelled]
    assert len(parts.searched) + len(parts.later) == len(TRAIN) + len(new) + (len(HELDOUT) if kept else 0)


def test_a_pseudo_labelled_row_is_labelled_by_the_teacher_and_only_for_the_tuning() -> None:
    parts = allocated(many())
    pseudo_labelled = slice(len(HELDOUT), None)
    texts = list(parts.asking.inputs[pseudo_labelled])
    teacher = numbers_of([f"teacher on {text}" for text in texts], len(LABELS))
    assert parts.asking.gold[pseudo_labelled].tolist() == teacher.argmax(axis=1).tolist()
    assert parts.asking.gold[: len(HELDOUT)].tolist() == [n % len(LABELS) for n in range(len(HELDOUT))]
    assert (parts.later.gold[len(HELDOUT) :] == -1).all()
    expected = answers_to(parts.asking.inputs)
    np.testing.assert_array_equal(parts.answers.logits, expected.logits)
    np.testing.assert_array_equal(parts.answers.queries, expected.queries)
    np.testing.assert_array_equal(parts.asking.queries, expected.queries)


def test_keys_of_the_teacher_leave_the_students_answers_to_the_pseudo_labelled_rows() -> None:
    parts = allocated(many(), RetrievalRecipe("distilled", "teacher"))
    np.testing.assert_array_equal(parts.answers.logits, answers_to(parts.asking.inputs).logits)


def test_no_relative_of_a_pseudo_labelled_row_is_searched() -> None:
    """Phrases of one text are pseudo-labelled together or not at all; phrases of train rows are not pseudo-labelled."""
    whole = [f"one{n} two{n} three{n}" for n in range(300)]
    new = [*whole, *(f"two{n} three{n}" for n in range(300)), *(text.split()[1] for text in TRAIN)]
    parts = allocated(new)
    asking = {text.rsplit("e", 1)[-1] for text in parts.asking.inputs[len(HELDOUT) :]}
    searched = {text.rsplit("e", 1)[-1] for text in parts.searched.inputs[len(TRAIN) :] if "three" in text}
    assert len(asking) == 65 and len(parts.asking) - len(HELDOUT) == 130  # a fifth of 650
    assert not asking & searched
    assert set(parts.searched.inputs) >= {text.split()[1] for text in TRAIN}


def test_a_relative_of_a_heldout_row_is_not_pseudo_labelled() -> None:
    relatives = [text.split(" ", 1)[1] for text in HELDOUT]
    parts = allocated([*many(), *relatives])
    assert not set(relatives) & {*parts.asking.inputs, *parts.searched.inputs}
    assert set(relatives) < set(parts.later.inputs)


def test_at_most_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "MOST_PSEUDO_LABELLED", 30)
    assert MOST_PSEUDO_LABELLED > 30 and len(allocated(many()).asking) == len(HELDOUT) + 30


def test_the_same_rows_give_the_same_pseudo_labelled_rows() -> None:
    assert allocated(many()).asking.inputs == allocated(many()).asking.inputs


def test_rows_that_the_run_holds_are_left_out() -> None:
    parts = allocated([*TRAIN, *HELDOUT])
    assert (parts.searched.inputs, parts.asking.inputs) == (TRAIN, HELDOUT)
