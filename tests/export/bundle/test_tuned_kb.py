"""The tuned blend of a knowledge base with extra rows that the teacher labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from reaugkd.export.bundle.tuned_kb import KbJob, build_tuned_kb
from reaugkd.export.onnx.quality import StudentOutputs
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.tuning.build_kb import KbRows, KbStorageConfig, blend_many
from reaugkd.runtime.data import Split

CLASSES, DIM = 4, 8
CENTRES = np.random.default_rng(0).normal(size=(CLASSES, DIM))


def split_of(name: str, count: int) -> Split:
    return Split([f"{name}{n} of{n} words{n}" for n in range(count)], None, None, name, list(range(count)))


def random_of(text: str) -> np.random.Generator:
    return np.random.default_rng(list(text.encode()))


def gold_of(texts: Any) -> np.ndarray:
    return np.array([random_of(text).integers(CLASSES) for text in texts])


def teacher_on(texts: Any) -> np.ndarray:
    """Logits that are sure of themselves and wrong for one text in five, whatever the text is like."""
    wrong = np.array([random_of(text + "?").random() < 0.2 for text in texts])
    return (4 * np.eye(CLASSES)[(gold_of(texts) + wrong) % CLASSES]).astype(np.float32)


def student_on(texts: Any, _label: str = "") -> StudentOutputs:
    """The teacher's answers with its errors, and embeddings of texts by what they really are."""
    noise = np.array([random_of(text + "!").normal(size=DIM) for text in texts])
    queries = CENTRES[gold_of(texts)] + 0.3 * noise
    return StudentOutputs(
        teacher_on(texts), (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    )


def rows_of(split: Split, gold: bool) -> KbRows:
    queries = student_on(split.texts).queries
    labels = gold_of(split.texts) if gold else np.full(len(split), -1)
    return KbRows(split.texts, teacher_on(split.texts), queries, queries, labels)


TRAIN, HELDOUT, NEW, SCORED = split_of("t", 12), split_of("h", 60), split_of("n", 1000), split_of("s", 500)

SOURCE = cast(
    Any,
    SimpleNamespace(
        train=TRAIN,
        heldout=HELDOUT,
        of_train=lambda *_: rows_of(TRAIN, gold=True),
        of_heldout=lambda _: rows_of(HELDOUT, gold=True),
        of_extra=lambda split, _: rows_of(split, gold=False),
    ),
)


@pytest.mark.parametrize("extra", [None, NEW])
def test_a_student_that_repeats_its_teachers_errors_does_not_answer_alone(extra: Split | None) -> None:
    """By its teacher's answers to the extra rows such a student would be perfect; neighbours correct its errors."""
    job = KbJob(RetrievalRecipe(keep_heldout=False), KbStorageConfig("f32"), extra)
    made = build_tuned_kb(SOURCE, job, student_on, student_on(HELDOUT.texts))
    assert made.tuning.blend.student_weight < 0.5 and made.tuning.rows == len(HELDOUT)
    answers, gold = blend_many(made.kb, made.tuning.blend, student_on(SCORED.texts)), gold_of(SCORED.texts)
    assert (answers.student.argmax(axis=1) == gold).mean() < 0.85
    assert (answers.blend.argmax(axis=1) == gold).mean() > 0.95
