"""Keys, soft labels, the tuned blend, and batch answers compared with the runtime's."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts
from support.workshop import Workshop

from reaugkd import Runtime
from reaugkd.export.onnx.quality import StudentOutputs
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.tuning.build_kb import (
    TUNING_EF_SEARCH,
    KbRows,
    KbStorageConfig,
    blend_many,
    build_kb,
    tune,
    tune_ef_search,
)
from reaugkd.export.tuning.tune import HeldOut, K, soft_labels, tune_blend
from reaugkd.runtime.decision.blend_config import BlendConfig

STUDENTS = RetrievalRecipe("distilled", "student")
CLASSES, DIM = 3, 8


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def knowledge(n: int = 60, seed: int = 0, right: float = 1.0) -> KbRows:
    """Rows of a class in turn, whose keys, logits and gold labels tell of it; ``right`` of the gold ones do."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % CLASSES
    centres = np.eye(DIM)[classes]
    wrong = rng.random(n) >= right
    return KbRows(
        inputs=[f"text {seed} {row}" for row in range(n)],
        logits=(2 * np.eye(CLASSES)[classes] + rng.standard_normal((n, CLASSES))).astype(np.float32),
        teacher_keys=unit(2 * centres + rng.standard_normal((n, DIM))),
        queries=unit(2 * centres + rng.standard_normal((n, DIM))),
        gold=np.where(wrong, (classes + 1) % CLASSES, classes),
    )


def answers_to(rows: KbRows, seed: int = 5) -> StudentOutputs:
    """A student that knows half as much as the teacher."""
    rng = np.random.default_rng(seed)
    return StudentOutputs((rows.logits / 2 + rng.standard_normal(rows.logits.shape)).astype(np.float32), rows.queries)


# Keys.


def test_keys_of_the_two_kinds() -> None:
    rows = knowledge()
    assert np.array_equal(rows.keys(STUDENTS), rows.queries)
    assert np.array_equal(rows.keys(replace(STUDENTS, keys="teacher")), rows.teacher_keys)


def test_rows_are_joined_in_order() -> None:
    first, second = knowledge(4, 0), knowledge(3, 1)
    both = first.joined(second)
    assert len(both) == 7 and list(both.inputs) == [*first.inputs, *second.inputs]
    for name in ("logits", "teacher_keys", "queries", "gold"):
        assert np.array_equal(getattr(both, name)[:4], getattr(first, name))
        assert np.array_equal(getattr(both, name)[4:], getattr(second, name))


# Soft labels.


@pytest.mark.parametrize(
    ("gold", "share", "expected"),
    [
        (None, 0.0, [0.25, 0.75]),
        (None, 0.5, [0.25, 0.75]),  # there is no gold to mix in
        (0, 0.5, [0.625, 0.375]),
        (1, 0.2, [0.2, 0.8]),
        (0, 1.0, [1.0, 0.0]),
        (0, 0.0, [0.25, 0.75]),
        (-1, 1.0, [0.25, 0.75]),
    ],
)
def test_soft_labels_by_hand(gold: int | None, share: float, expected: list[float]) -> None:
    logits = np.array([[5.0, 5.0 + math.log(3)]])
    found = soft_labels(logits, None if gold is None else np.array([gold]), share)
    np.testing.assert_allclose(found, [expected], atol=1e-12)
    deep = soft_labels(logits[None], None if gold is None else np.array([[gold]]), share)
    np.testing.assert_allclose(deep, [[expected]], atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_soft_labels_are_distributions_and_only_rows_with_gold_are_mixed(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    logits, gold = 5 * rng.standard_normal((12, 4)), rng.integers(-1, 4, 12)
    found = soft_labels(logits, gold, share)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    teacher = exponents / exponents.sum(axis=1, keepdims=True)
    for row, label in enumerate(gold):
        expected = teacher[row] if label < 0 else (1 - share) * teacher[row] + share * np.eye(4)[label]
        np.testing.assert_allclose(found[row], expected, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_a_knowledge_base_is_built_as_the_blend_has_it() -> None:
    rows = replace(knowledge(5), gold=np.array([0, -1, 1, -1, 2]))
    blend = BlendConfig(4, 0.1, 0.5, gold_share=0.5)
    kb = build_kb(rows, STUDENTS, blend, KbStorageConfig("f32", 8))
    assert (kb.config.dtype, kb.config.connectivity, kb.ndim, len(kb)) == ("f32", 8, DIM, 5)
    assert [kb.label(row) for row in range(5)] == [0, -1, 1, -1, 2]
    assert [kb.text(row) for row in range(5)] == list(rows.inputs)
    np.testing.assert_allclose(kb.soft_labels, soft_labels(rows.logits, rows.gold, 0.5), atol=1e-3)
    found, similarities = kb.search_many(rows.queries, 1)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(similarities, 1.0, atol=1e-5)
    assert build_kb(rows, STUDENTS, blend, KbStorageConfig(texts="none")).text(0) is None


# Tuning.


def tuned(rows: KbRows, heldout: KbRows, recipe: RetrievalRecipe) -> Any:
    kb = build_kb(rows, recipe, BlendConfig(1, 1.0, 1.0), KbStorageConfig("f32"))
    return tune(kb, rows, heldout, answers_to(heldout), recipe)


@pytest.mark.parametrize("keys", ["student", "teacher"])
def test_the_blend_is_tuned_on_the_neighbours_of_held_out_rows(keys: Any) -> None:
    """The nearest rows by a full search in float64, then the tuner on them."""
    rows, heldout, recipe = knowledge(60, 1), knowledge(90, 2), replace(STUDENTS, keys=keys)
    found, asked = tuned(rows, heldout, recipe), answers_to(heldout)
    similarities = heldout.queries.astype(np.float64) @ rows.keys(recipe).T
    order = np.argsort(-similarities, axis=1)[:, :K]
    expected = tune_blend(
        HeldOut(
            asked.logits,
            np.take_along_axis(similarities, order, axis=1).astype(np.float32),
            rows.logits[order],
            heldout.gold,
            rows.gold[order],
        ),
        gold_shares=(0.0, 0.5, 1.0),
    )
    assert found.blend == expected.blend
    assert found.nll == pytest.approx(expected.nll, rel=1e-4)


def test_rows_without_gold_labels_use_none() -> None:
    rows, heldout = knowledge(60, 1), knowledge(90, 2)
    unlabelled = replace(rows, gold=np.full(60, -1))
    plain = tuned(rows, heldout, replace(STUDENTS, gold_shares=(0.0,)))
    assert tuned(unlabelled, heldout, STUDENTS) == plain
    # And where gold is all that knows the class, it is.
    ignorant = replace(rows, logits=np.zeros_like(rows.logits))
    found = tuned(ignorant, heldout, STUDENTS)
    assert found.blend.gold_share == 1.0 and found.nll["blend"] < 0.9 * found.nll["student"]
    assert tuned(replace(ignorant, gold=np.full(60, -1)), heldout, STUDENTS).blend.gold_share == 0.0


def test_gold_is_mixed_in_row_by_row() -> None:
    """Half of the rows have none: the likelihood is that of the soft labels they will be stored with."""
    rows, heldout = knowledge(60, 1), knowledge(90, 2)
    half = replace(rows, gold=np.where(np.arange(60) % 2, -1, rows.gold))
    found = tuned(half, heldout, replace(STUDENTS, gold_shares=(0.7,)))
    kb = build_kb(half, STUDENTS, found.blend, KbStorageConfig("f32"))
    assert found.blend.gold_share == 0.7
    blends = blend_many(kb, found.blend, answers_to(heldout))
    for name, probabilities in (("student", blends.student), ("retrieval", blends.retrieval), ("blend", blends.blend)):
        nll = -np.log(probabilities[np.arange(90), heldout.gold]).mean()
        assert nll == pytest.approx(found.nll[name], rel=2e-3)  # stored in float16


def test_misleading_gold_is_left_out() -> None:
    found = tuned(knowledge(60, 1, right=0.0), knowledge(90, 2), STUDENTS)
    assert found.blend.gold_share == 0.0


# Answers.

WEIGHTS: dict[str, dict[str, Any]] = {
    "constant": {},
    "buckets": {"weight": {"kind": "buckets", "edges": [0.7, 0.8, 0.99], "weights": [0.9, 0.6, 0.4, 0.1]}},
    "logistic": {
        "weight": {"kind": "logistic", "intercept": 0.3, "coefficients": [-2.0, 1.5, 2.0, -1.0, 0.5]},
    },
}


def require_as_the_runtime(bundle: Path, texts: list[str]) -> set[float]:
    """Assert that ``blend_many`` gives the runtime's answers; returns the student's shares among them."""
    with Runtime.open(bundle, search="usearch") as runtime:
        answers = [runtime.student.run(runtime.tokenizer.encode(text)) for text in texts]
        many = blend_many(
            runtime.knowledge_base,
            runtime.manifest.blend,
            StudentOutputs(*(np.array(part) for part in zip(*answers, strict=True))),
        )
        found = [runtime.predict(text) for text in texts]
    assert many.blend.dtype == np.float64
    np.testing.assert_allclose(many.student, [one.student_probabilities for one in found], atol=1e-5)
    np.testing.assert_allclose(many.retrieval, [one.retrieval_probabilities for one in found], atol=1e-5)
    np.testing.assert_allclose(many.blend, [one.probabilities for one in found], atol=1e-5)
    return {one.student_weight for one in found}


@pytest.mark.parametrize("weight", WEIGHTS)
def test_many_rows_are_answered_as_the_runtime_answers_one(tmp_path: Path, weight: str) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    blend = json.loads((bundle / "manifest.json").read_text())["blend"]
    reseal(bundle, blend={**blend, **WEIGHTS[weight]})
    shares = require_as_the_runtime(bundle, [str(text) for text in tiny_texts(60, seed=8)])
    assert (len(shares) == 1) if weight == "constant" else (len(shares) >= 3)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_so_it_is_with_an_exported_bundle(workshop: Workshop, tmp_path: Path, weight: str) -> None:
    bundle = Path(shutil.copytree(workshop.bundle, tmp_path / "bundle"))
    blend = json.loads((bundle / "manifest.json").read_text())["blend"]
    reseal(bundle, blend={**blend, "k": 8, "tau": 0.1, "student_weight": 0.6, **WEIGHTS[weight]})
    lines = (workshop.run / "data" / "heldout.jsonl").read_text().splitlines()
    require_as_the_runtime(bundle, [json.loads(line)["text"] for line in lines])


def test_ef_search_is_chosen_by_recall() -> None:
    """At least twice k; as broad as it takes, against a search of all keys in float64."""
    rng = np.random.default_rng(3)
    rows = knowledge(600, seed=3)
    queries = rng.standard_normal((50, rows.queries.shape[1])).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    kb = build_kb(rows, STUDENTS, BlendConfig(1, 1.0, 1.0), KbStorageConfig("f32", connectivity=2))
    assert kb.config.expansion_search == TUNING_EF_SEARCH
    width = tune_ef_search(kb, rows, queries, STUDENTS, 40)
    assert width.expansion_search == kb.config.expansion_search >= 80
    found = kb.search_many(queries, 40)[0]
    nearest = np.argsort(-(queries.astype(np.float64) @ rows.queries.T.astype(np.float64)), axis=1)[:, :40]
    recall = np.mean([np.isin(true, row).mean() for true, row in zip(nearest, found, strict=True)])
    assert recall == pytest.approx(width.recall) and recall > 0.9
