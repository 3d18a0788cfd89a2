from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reaugkd.errors import QualityError
from reaugkd.export.onnx.quality import Floors, QualityReport, StudentOutputs, answers_of, compare
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase

GOOD = QualityReport(
    rows=1000,
    label_agreement=0.99,
    accuracy_float32=0.90,
    accuracy=0.898,
    neighbour_overlap=0.8,
    query_cosine=0.999,
    k=8,
)


def unit(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors in a plane, whose nearest neighbours are obvious."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def make_kb(*degrees: float) -> KnowledgeBase:
    soft = np.full((len(degrees), 2), 0.5, np.float32)
    return KnowledgeBase.build(unit(*degrees), soft, config=IndexConfig(ndim=2, dtype="f32"))


def logits(*answers: int) -> NDArray[np.float32]:
    return np.eye(3, dtype=np.float32)[list(answers)]


def test_every_number_by_hand() -> None:
    kb = make_kb(0, 10, 20, 90, 100, 110)
    before = StudentOutputs(logits(0, 1, 2, 0), unit(1, 91, 9, 109))
    # The second query turns from the rows at 90 and 100 to those at 0 and 10; the third takes 20 in place of 0.
    after = StudentOutputs(logits(0, 1, 1, 1), unit(1, 4, 16, 109))
    gold = np.array([0, 1, 2, 1])
    report = compare(before, after, gold, kb, k=2)
    assert report.rows == 4 and report.k == 2
    assert report.label_agreement == 2 / 4
    assert report.accuracy_float32 == 3 / 4
    assert report.accuracy == 3 / 4
    assert report.neighbour_overlap == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert report.query_cosine == pytest.approx((1 + np.cos(np.radians(87)) + np.cos(np.radians(7)) + 1) / 4, abs=1e-6)


def test_the_same_answers_are_perfect() -> None:
    kb = make_kb(*range(0, 90, 5))
    answers = StudentOutputs(logits(0, 2), unit(3, 44))
    report = compare(answers, answers, np.array([1, 2]), kb, k=8)
    assert report.label_agreement == report.neighbour_overlap == 1.0
    assert report.query_cosine == pytest.approx(1.0)
    assert report.accuracy == report.accuracy_float32 == 0.5
    assert report.failures(Floors()) == []


def test_fewer_rows_than_neighbours_asked_for() -> None:
    kb = make_kb(0, 90)
    answers, others = StudentOutputs(logits(0), unit(1)), StudentOutputs(logits(0), unit(89))
    assert compare(answers, others, np.array([0]), kb, k=8).neighbour_overlap == 1.0


@pytest.mark.parametrize(
    ("changes", "failures"),
    [
        ({}, []),
        ({"label_agreement": 0.95}, []),
        ({"label_agreement": 0.9499}, ["label agreement 0.9499 is below 0.95"]),
        ({"accuracy": 0.889}, ["accuracy fell by 0.0110, more than 0.01"]),
        ({"accuracy": 0.99}, []),
        ({"neighbour_overlap": 0.3}, []),
        ({"neighbour_overlap": 0.2999}, ["neighbour overlap 0.2999 is below 0.3"]),
        # On few rows one row is a large share: three may be lost.
        ({"rows": 100, "accuracy": 0.87}, []),
        ({"rows": 100, "accuracy": 0.86}, ["accuracy fell by 0.0400, more than 0.01"]),
    ],
)
def test_floors(changes: dict[str, Any], failures: list[str]) -> None:
    report = replace(GOOD, **changes)
    assert report.failures(Floors()) == failures
    if failures:
        with pytest.raises(QualityError, match="--allow-quality-loss") as caught:
            report.require(Floors())
        assert caught.value.found == failures[0]
        assert caught.value.exit_code == 1
    else:
        report.require(Floors())


def test_all_failures_are_reported_together() -> None:
    report = replace(GOOD, label_agreement=0.5, accuracy=0.5, neighbour_overlap=0.1)
    assert len(report.failures(Floors())) == 3
    assert report.failures(Floors(agreement=0.4, accuracy_loss=0.5, neighbour_overlap=0.05)) == []


def test_nan_misses_every_floor() -> None:
    nan = float("nan")
    for name in ("label_agreement", "neighbour_overlap", "accuracy"):
        assert len(replace(GOOD, **{name: nan}).failures(Floors())) == 1


def test_it_is_json_ready() -> None:
    report = compare(
        StudentOutputs(logits(0), unit(1)), StudentOutputs(logits(1), unit(2)), np.array([0]), make_kb(0, 5), k=1
    )
    assert QualityReport(**json.loads(json.dumps(report.as_dict()))) == report


def test_rows_are_run_one_by_one_in_order() -> None:
    class Tokenizer:
        def encode(self, text: str, pair: str | None = None) -> tuple[str, str | None]:
            return text, pair

    class Session:
        def run(self, encoding: tuple[str, str | None]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            text, pair = encoding
            return np.array([len(text), len(pair or "")], np.float32), np.array([ord(text[0])], np.float32)

    done: list[int] = []
    found = answers_of(Session(), Tokenizer(), ["abc", ("d", "efgh"), "ij"], done.append)  # type: ignore[arg-type]
    assert found.logits.tolist() == [[3, 0], [1, 4], [2, 0]]
    assert found.queries.tolist() == [[97], [100], [105]]
    assert done == [1, 1, 1]
