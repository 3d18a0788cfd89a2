from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import Runtime, UsageError
from reaugkd.runtime.data import Split
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.gating import Gate
from reaugkd.runtime.evaluation.evaluate import evaluate_bundle
from reaugkd.runtime.evaluation.results import BLEND, GATED, STUDENT

TEXTS = tiny_texts(60, seed=11)


def gated_bundle(path: Path, threshold: float) -> Path:
    build_tiny_bundle(path)
    reseal(path, gate=dataclasses.asdict(Gate(threshold, 0.01, 0.05, 400, 0, 0.3)))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gate's threshold is the median of the student's confidence on these texts."""
    path = build_tiny_bundle(tmp_path_factory.mktemp("gate") / "tiny")
    with Runtime.open(path, retrieval="never") as runtime:
        threshold = float(np.median([runtime.predict(text).probability for text in TEXTS]))
    reseal(path, gate=dataclasses.asdict(Gate(threshold, 0.01, 0.05, 400, 0, 0.5)))
    return path


def test_the_unsure_texts_are_answered_with_neighbours_and_the_others_without(path: Path) -> None:
    with Runtime.open(path, retrieval="gated") as gated:
        always, never = gated.with_retrieval("always", "usearch"), gated.with_retrieval("never")
        assert gated.manifest.gate is not None
        threshold = gated.manifest.gate.threshold
        reasons = []
        for text in TEXTS:
            found, student = gated.predict(text), never.predict(text)
            reasons.append(found.reason)
            if student.probability >= threshold:
                assert found.reason == "sure" and not found.retrieved and not found.neighbours
                assert found.probabilities.tobytes() == student.probabilities.tobytes()
                assert found.student_weight == 1.0 and found.timings.search_us == 0.0
            else:
                assert found == always.predict(text) and found.reason is None
        assert 20 <= reasons.count("sure") <= 40


def test_the_record_has_the_reason(path: Path) -> None:
    with Runtime.open(path, retrieval="gated") as gated:
        records = [gated.predict(text).as_record() for text in TEXTS]
        assert {record.get("reason") for record in records} == {None, "sure"}
        assert all(record["retrieved"] is ("reason" not in record) for record in records)
        assert gated.with_retrieval("never").predict(TEXTS[0]).as_record()["reason"] == "never"


def test_a_threshold_of_zero_never_retrieves_and_one_nearly_always(tmp_path: Path) -> None:
    with Runtime.open(gated_bundle(tmp_path / "zero", 0.0), retrieval="gated") as runtime:
        assert {runtime.predict(text).reason for text in TEXTS} == {"sure"}
    with Runtime.open(gated_bundle(tmp_path / "one", 1.0), retrieval="gated") as runtime:
        assert {runtime.predict(text).reason for text in TEXTS} == {None}


def test_a_stream_a_pickle_and_threads_keep_to_the_gate(path: Path) -> None:
    with Runtime.open(path, retrieval="gated", threads=2) as gated:
        alone = [gated.predict(text) for text in TEXTS]
        assert list(gated.predict_many(TEXTS)) == alone
        again: Runtime = pickle.loads(pickle.dumps(gated))
        assert again.retrieval == "gated" and list(again.predict_many(TEXTS)) == alone


def test_a_bundle_without_a_gate_is_refused(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(UsageError, match="has no gate"):
        Runtime.open(path, retrieval="gated")
    with Runtime.open(path) as runtime, pytest.raises(UsageError, match="has no gate"):
        runtime.with_retrieval("gated")


def test_the_evaluation_has_a_line_for_it(path: Path) -> None:
    with Runtime.open(path) as runtime:
        labels = [runtime.labels[number % 3] for number in range(len(TEXTS))]
        split = Split(tuple(map(str, TEXTS)), None, tuple(labels), "texts", tuple(range(1, len(TEXTS) + 1)))
        report = evaluate_bundle(runtime, split)
        gated = [runtime.with_retrieval("gated").predict(text) for text in TEXTS]
    rows = {row.system: row.scores for row in report.rows}
    right = np.mean([answer.label == label for answer, label in zip(gated, labels, strict=True)])
    assert rows[GATED]["accuracy"] == right
    assert min(rows[STUDENT]["nll"], rows[BLEND]["nll"]) != rows[GATED]["nll"]
    assert report.gated == np.mean([answer.retrieved for answer in gated])


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.1}, {"epsilon": -0.1}, {"delta": 2.0}, {"losses": 5}, {"retrieved": float("nan")}]
)
def test_numbers_that_no_gate_has(wrong: dict[str, float]) -> None:
    good = {"threshold": 0.9, "epsilon": 0.01, "delta": 0.05, "rows": 4, "losses": 0, "retrieved": 0.2}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Gate(**{**good, **wrong})  # type: ignore[arg-type]


def test_a_student_that_always_wins_needs_no_neighbours(tmp_path: Path) -> None:
    """If the blend is the student alone, the export sets a gate that searches for no text."""
    path = gated_bundle(tmp_path / "tiny", 0.0)
    reseal(path, blend=dataclasses.asdict(BlendConfig(k=5, tau=0.05, student_weight=1.0)))
    with Runtime.open(path, retrieval="gated") as gated:
        for text in TEXTS[:20]:
            found, always = gated.predict(text), gated.with_retrieval("always").predict(text)
            assert always.reason == "weight" and found.probabilities.tobytes() == always.probabilities.tobytes()
