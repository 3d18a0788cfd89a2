"""The public API as a typed program: mypy checks the types (`make lint`), pytest runs it.

mypy reports an unused ``type: ignore``, so each one also asserts that the types refuse the call.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
import pytest
from numpy.typing import NDArray

import reaugkd
from reaugkd import (
    Abstain,
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
    KnowledgeBase,
    LabelError,
    LabelIssue,
    ModelError,
    Neighbour,
    Neighbours,
    OutputExistsError,
    Prediction,
    QualityError,
    ReaugkdClassifier,
    ReaugkdError,
    RecipeError,
    Review,
    Runtime,
    Stats,
    StorageError,
    Suggestion,
    TextError,
    UsageError,
    pipeline,
    review,
    suggest,
)
from reaugkd.kb.searchable import Searchable

ELSEWHERE = {"Edit", "Row"}  # the editor of the knowledge base has its own typed test


def test_a_runtime(edge_bundle: Path) -> None:
    with Runtime.open(
        edge_bundle, threads=1, retrieval="always", verify=True, budget_ms=1e6, require_signature=None
    ) as runtime:
        assert_type(runtime, Runtime)
        assert_type(runtime.labels, tuple[str, ...])
        assert_type(runtime.threads, int)
        assert_type(runtime.knowledge_base, Searchable)
        assert isinstance(runtime.knowledge_base, KnowledgeBase)  # until an edit is made
        assert len(runtime.knowledge_base) == runtime.manifest.kb_rows
        assert runtime.gate is None and runtime.retrieval == "always"
        assert runtime.tokenizer.encode("noon").ids and runtime.student.path.is_file()
        assert_type(runtime.predict("noon"), Prediction)
        assert_type(runtime.predict_many(["noon"]), Iterator[Prediction])
        assert_type(runtime.predict_many(["noon"], on_error="return"), Iterator[Prediction | ReaugkdError])
        keyed = runtime.predict_keyed([(7, "noon"), (8, TextError("unread")), (9, "")])
        assert_type(keyed, Iterator[tuple[int, Prediction | ReaugkdError]])
        assert [(key, type(answer)) for key, answer in keyed] == [(7, Prediction), (8, TextError), (9, TextError)]
        assert_type(runtime.stats(reset=True), Stats)
        assert_type(runtime.stats().prometheus(), str)
        alone = runtime.with_retrieval("never")
        assert alone.predict("noon").reason == "never"
        assert runtime.search == alone.with_retrieval("always", search="usearch").search == "usearch"  # with a budget
        alone.close()
    with Runtime.open(str(edge_bundle), search="graph") as runtime:
        assert runtime.search == "graph"
        assert runtime.predict("noon").retrieved


def test_the_hub(edge_bundle: Path, tmp_path: Path) -> None:
    with Runtime.from_pretrained(edge_bundle, revision=None, threads=1) as runtime:  # a folder: the Hub is not asked
        assert_type(runtime, Runtime)
        runtime.save_pretrained(tmp_path / "copy")
        with pytest.raises(UsageError, match="owner/name"):
            assert_type(runtime.push_to_hub("nobody"), str)
        assert Runtime.from_pretrained(str(tmp_path / "copy")).manifest == runtime.manifest


def test_a_prediction(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle) as runtime:
        answer = runtime.predict("noon")
    assert_type(answer.label, str)
    assert_type(answer.probabilities, NDArray[np.float32])
    assert_type(answer.retrieval_probabilities, NDArray[np.float32] | None)
    assert_type(answer.rejection_score, float | None)
    assert_type(answer.prediction_set, tuple[str, ...] | None)
    assert answer.as_record(explain=True)["label"] == answer.label
    assert answer.timings.run_us > 0 and answer.student_weight < 1 and not answer.abstained
    with pytest.raises(UsageError, match="no prediction sets"):
        answer.prediction_set_of(0.8)


def test_the_shapes_of_other_libraries(edge_bundle: Path) -> None:
    async def answers(runtime: Runtime) -> None:
        assert_type(await runtime.apredict("noon"), Prediction)
        assert_type(runtime.apredict_many(["noon"]), AsyncIterator[Prediction])
        many = runtime.apredict_many(runtime.apredict_many(["noon"]))  # type: ignore[arg-type]
        with pytest.raises(TextError):
            await anext(many)
        async for one in runtime.apredict_many([""], on_error="return"):
            assert_type(one, Prediction | ReaugkdError)

    with Runtime.open(edge_bundle) as runtime:
        asyncio.run(answers(runtime))
        assert_type(runtime.predict("noon").top(2), tuple[tuple[str, float], ...])
    assert pipeline(edge_bundle, top_k=2, threads=1).runtime.threads == 1
    classifier = ReaugkdClassifier.from_bundle(edge_bundle)
    assert_type(classifier.runtime_, Runtime)
    assert_type(classifier.predict_proba(["noon"]), NDArray[np.float64])


def test_neighbours_are_a_sequence_like_a_tuple(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle) as runtime:
        near = runtime.predict("noon").neighbours
        none = runtime.with_retrieval("never").predict("noon").neighbours
    assert_type(near, Neighbours)
    assert_type(near[0], Neighbour)
    assert_type(near[:2], tuple[Neighbour, ...])
    assert near[:2] == tuple(near)[:2] and near[-1] is list(near)[-1]
    assert not none and len(near) == 8
    assert near.rows.tolist() == [one.row for one in near]
    assert [one.similarity for one in near] == near.similarities.tolist()
    assert near[0].as_record()["text"] == near[0].text


def test_labelling(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle) as runtime:
        found = review(runtime, below=1.0)
        assert_type(found, Review)
        assert_type(found.issues, tuple[LabelIssue, ...])
        assert found.issues[0].self_confidence <= found.issues[-1].self_confidence
        chosen = suggest(runtime, ["alarm at noon", "rain tomorrow"], count=1)
        assert_type(chosen, tuple[Suggestion, ...])
        assert len(chosen) == 1 and chosen[0].reason


def test_abstention_goals() -> None:
    assert Abstain(coverage=0.95) == Abstain.parse("coverage=95%")
    assert_type(Abstain(error=0.02).error, float | None)


def test_errors_are_one_tree() -> None:
    data = (ColumnError, EmptyFileError, LabelError, TextError)
    bundle = (BundleIntegrityError, BundleVersionError)
    others = (
        *(UsageError, RecipeError, DataError, ModelError, BundleError, OutputExistsError, DependencyError),
        *(StorageError, EditRefusedError, HubError, QualityError, DistributedError),
    )
    assert all(issubclass(one, DataError) for one in data) and all(issubclass(one, BundleError) for one in bundle)
    error = TextError("the text is empty", row=3)
    assert all(issubclass(one, ReaugkdError) for one in others) and error.at(row=4).row == 4
    assert_type(error.as_record(), dict[str, object])


WRONG: dict[str, Callable[[Path], object]] = {
    "path": lambda path: Runtime.open(3),  # type: ignore[arg-type]
    "path None": lambda path: Runtime.open(None),  # type: ignore[arg-type]
    "threads bool": lambda path: Runtime.open(path, threads=True),  # a bool is an int for mypy
    "threads": lambda path: Runtime.open(path, threads="2"),  # type: ignore[arg-type]
    "retrieval": lambda path: Runtime.open(path, retrieval=True),  # type: ignore[arg-type]
    "retrieval array": lambda path: Runtime.open(path, retrieval=np.zeros(2)),  # type: ignore[arg-type]
    "verify": lambda path: Runtime.open(path, verify=1),  # type: ignore[arg-type]
    "budget": lambda path: Runtime.open(path, budget_ms="5"),  # type: ignore[arg-type]
    "budget bool": lambda path: Runtime.open(path, budget_ms=True),
    "signature": lambda path: Runtime.open(path, require_signature=5),  # type: ignore[arg-type]
    "abstain": lambda path: Runtime.open(path).predict("noon", abstain=0.9),  # type: ignore[arg-type]
    "texts": lambda path: Runtime.open(path).predict_many(3),  # type: ignore[call-overload]
    "texts str": lambda path: Runtime.open(path).predict_many("noon"),  # a str is an iterable of str for mypy
    "texts bytes": lambda path: Runtime.open(path).predict_many(b"noon"),  # type: ignore[arg-type]
    "on_error": lambda path: Runtime.open(path).predict_many(["noon"], on_error=True),  # type: ignore[call-overload]
    "abstain many": lambda path: Runtime.open(path).predict_many(["noon"], abstain=1),  # type: ignore[call-overload]
    "keyed": lambda path: Runtime.open(path).predict_keyed(3),  # type: ignore[arg-type]
    "with_retrieval": lambda path: Runtime.open(path).with_retrieval(None),  # type: ignore[arg-type]
    "reset": lambda path: Runtime.open(path).stats(reset=1),  # type: ignore[arg-type]
    "from_pretrained": lambda path: Runtime.from_pretrained(3),  # type: ignore[arg-type]
    "revision": lambda path: Runtime.from_pretrained("a/b", revision=3),  # type: ignore[arg-type]
    "push_to_hub": lambda path: Runtime.open(path).push_to_hub(3),  # type: ignore[arg-type]
    "parse": lambda path: Abstain.parse(0.9),  # type: ignore[arg-type]
    "coverage": lambda path: Abstain(coverage="0.9"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_type_is_refused_with_what_was_found_and_expected(
    edge_bundle: Path, call: Callable[[Path], object]
) -> None:
    with pytest.raises(UsageError) as caught:
        call(edge_bundle)
    assert caught.value.found is not None and caught.value.expected is not None


@pytest.mark.parametrize("text", [None, 3, b"noon", ["noon"], {"text": "noon"}])
def test_other_values_are_text_errors_so_that_a_stream_continues(edge_bundle: Path, text: str) -> None:
    with Runtime.open(edge_bundle) as runtime:
        with pytest.raises(TextError):
            runtime.predict(text)
        [error, answer] = runtime.predict_many([text, "noon"], on_error="return")
        assert isinstance(error, TextError) and isinstance(answer, Prediction)


def test_every_public_name_is_used_above() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(reaugkd.__all__) - ELSEWHERE - {"__version__"} <= loaded
    assert {name for name in vars(Runtime) if not name.startswith("_")} - {"kb"} <= read
    assert_type(reaugkd.__version__, str)
