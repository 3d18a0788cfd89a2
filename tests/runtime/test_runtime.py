"""Answers of a runtime: the formula, the same bits in any stream, records, bad texts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny_bundle import WORDS, Text, build_tiny_bundle, reseal, tiny_texts

from reaugkd import ModelError, Runtime, TextError, UsageError
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight
from reaugkd.runtime.inference.retrieval_policy import SearchMethod
from reaugkd.runtime.inference.session.student import StudentAnswer, StudentSession

texts_strategy = st.lists(
    st.lists(st.sampled_from([*WORDS, "unknown", "?"]), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=12
)


@pytest.fixture(scope="module")
def threaded(path: Path) -> Iterator[Runtime]:
    with Runtime.open(path, threads=3) as opened:
        yield opened


SEARCHES: dict[SearchMethod, float] = {"graph": 1e-6, "usearch": 1e-3}
"""How far a similarity may be from the exact cosine: usearch rounds the query to the keys' type."""


@pytest.mark.parametrize("search", SEARCHES)
def test_a_prediction_is_tokenize_run_search_blend(runtime: Runtime, search: SearchMethod) -> None:
    """Compared with the four steps computed by hand, in float64."""
    config, searching = runtime.manifest.blend, runtime.with_retrieval("always", search)
    kb = runtime.knowledge_base
    assert isinstance(kb, KnowledgeBase) and searching.search == search
    keys = kb.keys().astype(np.float64)
    for text in tiny_texts(20, seed=9):
        assert isinstance(text, str)
        got = searching.predict(text)
        logits, embedding = runtime.student.run(runtime.tokenizer.encode(text))
        cosines = keys @ embedding / np.linalg.norm(keys, axis=1)
        rows, similarities = got.neighbours.rows, got.similarities
        np.testing.assert_allclose(similarities, cosines[rows], atol=SEARCHES[search])
        np.testing.assert_allclose(similarities, -np.sort(-cosines)[: config.k], atol=SEARCHES[search])
        exponents = np.exp(logits.astype(np.float64) / config.student_temperature)
        student = exponents / exponents.sum()
        weights = np.exp(similarities.astype(np.float64) / config.tau)
        weights /= weights.sum()
        labels = kb.soft_labels[rows].astype(np.float64)
        retrieved = weights @ (labels / labels.sum(axis=1, keepdims=True))
        blended = config.student_weight * student + (1 - config.student_weight) * retrieved
        np.testing.assert_allclose(got.student_probabilities, student, atol=1e-5)
        np.testing.assert_allclose(got.retrieval_probabilities, retrieved, atol=1e-5)
        np.testing.assert_allclose(got.probabilities, blended, atol=1e-5)
        assert got.label == runtime.labels[int(np.argmax(blended))]
        assert got.probability == got.probabilities.max()
        assert got.retrieved and len(got.neighbours) == config.k
        assert got.student_weight == config.student_weight == 0.4
        assert [near.row for near in got.neighbours] == rows.tolist()
        np.testing.assert_allclose([near.weight for near in got.neighbours], weights, atol=1e-5)
        assert all(stage > 0 for stage in got.timings if stage != got.timings.search_us)
        assert (got.timings.search_us > 0) == (search == "usearch")


def test_neighbours_say_who_they_are(runtime: Runtime) -> None:
    kb = runtime.knowledge_base
    seen_gold = set()
    for text in tiny_texts(30, seed=3):
        for near in runtime.predict(text).neighbours:
            assert near.id == kb.id(near.row) == 1000 + near.row
            assert near.text == kb.text(near.row)
            assert near.label == runtime.labels[int(kb.soft_labels[near.row].argmax())]
            assert near.gold_label == (None if kb.label(near.row) < 0 else runtime.labels[kb.label(near.row)])
            np.testing.assert_array_equal(near.soft_label, kb.soft_labels[near.row].astype(np.float32))
            assert -1 <= near.similarity <= 1.001
            seen_gold.add(near.gold_label)
    assert None in seen_gold and len(seen_gold) > 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=texts_strategy, order=st.randoms(use_true_random=False))
def test_an_answer_is_the_same_alone_in_any_stream_and_on_any_threads(
    runtime: Runtime, threaded: Runtime, texts: list[str], order: object
) -> None:
    alone = {text: runtime.predict(text) for text in texts}
    order.shuffle(texts)  # type: ignore[attr-defined]
    for opened in (runtime, threaded):
        assert list(opened.predict_many(texts)) == [alone[text] for text in texts]
        assert [opened.predict(text) for text in texts] == [alone[text] for text in texts]


def test_equality_is_of_bits(runtime: Runtime) -> None:
    one = runtime.predict("alarm at noon")
    assert one == runtime.predict("alarm at noon") and hash(one) == hash(runtime.predict("alarm at noon"))
    assert one != runtime.predict("jazz")
    nudged = one.probabilities.copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(1))
    assert one != dataclasses.replace(one, probabilities=nudged)
    assert one != dataclasses.replace(one, student_weight=np.nextafter(one.student_weight, 1))
    assert one != "alarm"


def test_without_retrieval_the_student_answers_alone(path: Path, runtime: Runtime) -> None:
    with Runtime.open(path, retrieval="never") as alone:
        for text in tiny_texts(20, seed=5):
            got, both = alone.predict(text), runtime.predict(text)
            assert not got.retrieved and not got.neighbours and got.retrieval_probabilities is None
            assert got.student_weight == 1.0
            assert got.probabilities.tobytes() == got.student_probabilities.tobytes()
            assert got.probabilities.tobytes() == both.student_probabilities.tobytes()
            assert got.timings.search_us == 0
            assert runtime.with_retrieval("never").predict(text) == got
            assert alone.with_retrieval("always").predict(text) == both


def test_a_student_weight_of_one_is_the_student_bit_for_bit(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny", labels=[f"l{number}" for number in range(11)])
    reseal(path, blend=dataclasses.asdict(BlendConfig(k=5, tau=0.05, student_weight=1.0, student_temperature=0.7)))
    with Runtime.open(path) as both, Runtime.open(path, retrieval="never") as alone:
        assert both.search is None
        kb, searched = both.knowledge_base, []
        for text in tiny_texts(50, seed=5):
            assert isinstance(text, str)
            answer = both.predict(text)
            assert not answer.retrieved and answer.reason == "weight" and answer.student_weight == 1.0
            assert answer.probabilities.tobytes() == alone.predict(text).probabilities.tobytes()
            found = kb.search(both.student.run(both.tokenizer.encode(text))[1], 5)
            searched.append((answer, found))
        for answer, found in searched:  # neighbours are searched for when they are read
            assert [near.row for near in answer.neighbours] == found.rows.tolist()
            assert [near.similarity for near in answer.neighbours] == found.similarities.tolist()
            assert sum(near.weight for near in answer.neighbours) == pytest.approx(1, abs=1e-6)
        text = str(tiny_texts(1, seed=99)[0])
        label = next(label for label in both.labels if label != both.predict(text).label)
        both.kb.add(text, label)  # an edit counts, whatever the weight
        assert both.predict(text).label == label and both.search == "graph"


@pytest.mark.parametrize(
    "weight",
    [
        BucketWeight((0.8, 0.9, 0.95), (0.9, 0.6, 0.3, 0.1)),
        LogisticWeight(-6.0, (9.0, -3.0, -2.0, 1.0, 0.5)),
    ],
)
def test_a_weight_per_example_goes_through_a_bundle_into_every_answer(tmp_path: Path, weight: ExampleWeight) -> None:
    """Compared with the features of each text in float64."""
    path = build_tiny_bundle(tmp_path / "tiny")
    with Runtime.open(path) as constant:
        before = [constant.predict(text) for text in tiny_texts(60, seed=4)]
        config = dataclasses.replace(constant.manifest.blend, weight=weight)
    reseal(path, blend=json.loads(json.dumps(dataclasses.asdict(config))))
    with Runtime.open(path) as runtime, Runtime.open(path, threads=3) as threaded:
        assert runtime.manifest.blend == config
        after = list(runtime.predict_many(tiny_texts(60, seed=4)))
        assert after == list(threaded.predict_many(tiny_texts(60, seed=4)))
    for old, new in zip(before, after, strict=True):
        student, retrieved = (
            np.asarray(one, np.float64) for one in (old.student_probabilities, old.retrieval_probabilities)
        )
        similarities = [near.similarity for near in old.neighbours]
        if isinstance(weight, BucketWeight):
            expected = weight.weights[sum(similarities[0] >= edge for edge in weight.edges)]
        else:
            entropies = [-(one * np.log(one)).sum() / np.log(3) for one in (retrieved, student)]
            agree = float(student.argmax() == retrieved.argmax())
            features = [similarities[0], similarities[0] - similarities[-1], *entropies, agree]
            expected = 1 / (1 + np.exp(-(weight.intercept + np.dot(weight.coefficients, features))))
        assert new.student_weight == pytest.approx(expected, abs=1e-5)
        np.testing.assert_allclose(new.probabilities, expected * student + (1 - expected) * retrieved, atol=2e-5)
        assert new.student_probabilities.tobytes() == old.student_probabilities.tobytes()
        assert [near.row for near in new.neighbours] == [near.row for near in old.neighbours]
    assert len({answer.student_weight for answer in after}) >= 3


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_small_knowledge_bases_return_all_their_rows(tmp_path: Path, rows: int) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "tiny", rows=rows)) as runtime:
        got = runtime.predict("alarm at noon")
        assert len(got.neighbours) == rows
        assert got.retrieved == (rows > 0)
        assert got.probabilities.sum() == pytest.approx(1, abs=1e-5)
        if rows == 0:
            assert got.student_weight == 1.0
            assert got.probabilities.tobytes() == got.student_probabilities.tobytes()
        if rows == 1:
            assert got.neighbours[0].weight == 1.0


def test_pairs(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "tiny", pairs=True)) as runtime:
        pairs = tiny_texts(5, seed=8, pairs=True)
        answers = list(runtime.predict_many(pairs))
        assert answers == [runtime.predict(pair) for pair in pairs]
        assert isinstance(answers[0].neighbours[0].text, tuple)
        first, second = pairs[0]
        assert runtime.predict((second, first)) != answers[0]
        with pytest.raises(TextError, match="pairs"):
            runtime.predict("alone")


def test_texts_may_be_left_out(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "tiny", texts=False)) as runtime:
        assert runtime.predict("noon").neighbours[0].text is None


@pytest.mark.parametrize("bad", ["", "  \n", "x" * 1_000_001, ("a", "b"), None, "\ud800"])
def test_a_bad_text_is_the_users_mistake(runtime: Runtime, bad: Text) -> None:
    with pytest.raises(TextError):
        runtime.predict(bad)


def test_records_are_json(runtime: Runtime) -> None:
    import json

    got = runtime.predict("noon")
    record = json.loads(json.dumps(got.as_record(explain=True)))
    assert record["label"] == got.label and record["retrieved"] is True
    assert list(record["probabilities"]) == list(runtime.labels)
    assert record["probabilities"][got.label] == got.probability
    assert record["neighbours"][0]["text"] == got.neighbours[0].text
    assert record["student_weight"] == got.student_weight
    short = {"label", "probability", "probabilities", "retrieved", "truncated"}
    assert set(got.as_record()) == short
    more = {"decided_by", "student_weight", "student_probabilities", "retrieval_probabilities", "neighbours"}
    assert set(record) == short | more


def test_the_top_labels_begin_with_the_answer(edge_bundle: Path, tmp_path: Path) -> None:
    """Also where an edit decides the answer, and where labels are equally probable."""
    path, texts = Path(shutil.copytree(edge_bundle, tmp_path / "bundle")), tiny_texts(20, seed=5)
    with Runtime.open(path) as runtime:
        for text, label in zip(texts[:6], "abcabc", strict=True):
            runtime.kb.add(text, label)
        runtime.kb.add("jazz", "new", new_labels=True)
        for answer in runtime.predict_many([*texts, "jazz"]):
            top = answer.top(99)
            assert len(top) == 4 and top[:1] == answer.top(1) == ((answer.label, answer.probability),)
            assert dict(top) == dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
            assert [one for _, one in top] == sorted((one for _, one in top), reverse=True)
    even = dataclasses.replace(answer, probabilities=np.full(4, 0.25, np.float32))
    assert [label for label, _ in even.top(3)] == ["a", "b", "c"]
    for wrong in (0, -1, True, 1.0, None):
        with pytest.raises(UsageError, match="whole number, 1 or more"):
            even.top(wrong)  # type: ignore[arg-type]


def test_a_student_that_computes_no_number_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime.open(path, search="usearch") as runtime:
        _, embedding = runtime.student.run(runtime.tokenizer.encode("noon"))
        p = np.array([0, np.nan, 0], np.float32)
        monkeypatch.setattr(StudentSession, "answer", lambda *_: StudentAnswer(float("nan"), 1, p, embedding))
        with pytest.raises(ModelError, match="NaN"):
            runtime.predict("noon")
