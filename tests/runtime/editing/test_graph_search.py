"""Edits of a bundle whose search is part of the run of the model."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import BundleError, BundleIntegrityError, Runtime, UsageError
from reaugkd.kb.index import hnsw
from reaugkd.kb.searchable import SearchResult
from reaugkd.runtime.bundle.bundle import MODEL_FILE
from reaugkd.runtime.inference.session import sessions
from reaugkd.runtime.inference.session.retrieval_session import RetrievalSession

ASKED = [str(text) for text in tiny_texts(25, seed=3)]


@pytest.fixture(params=["f16", "i8"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build_tiny_bundle(tmp_path / "bundle", dtype=request.param)


def require_same(bundle: Path) -> None:
    """Either search finds the same cosines but for rounding, which can change the last neighbour."""
    with Runtime.open(bundle, search="graph") as graph, Runtime.open(bundle, search="usearch") as usearch:
        assert (graph.search, usearch.search) == ("graph", "usearch")
        for text in ASKED:
            one, other = graph.predict(text), usearch.predict(text)
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=0.05)
            np.testing.assert_allclose(one.similarities, other.similarities, atol=0.01)
            assert len(one.neighbours) == len(other.neighbours)


def test_both_searches_agree_after_every_kind_of_edit(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        assert runtime.search == "graph"
        near = runtime.predict(ASKED[0]).neighbours
        runtime.kb.add([str(text) for text in tiny_texts(5, seed=50)], "a")
        require_same(bundle)
        runtime.kb.remove([near[0].id, near[1].id])  # neighbours that the graph still finds
        assert not {near[0].id, near[1].id} & {one.id for one in runtime.predict(ASKED[0]).neighbours}
        require_same(bundle)
        runtime.kb.relabel({near[2].id: "b"})
        runtime.kb.add(ASKED[1], "new", new_labels=True)
        runtime.kb.wait()  # until the classifier of the new label is fitted
        assert runtime.predict(ASKED[1]).label == "new"
        require_same(bundle)
        before = [runtime.predict(text) for text in ASKED]
        runtime.kb.compact()  # into rows with pins and labels that the student does not know
        assert runtime.search == "graph" and runtime.predict(ASKED[1]).label == "new"
        for text, old in zip(ASKED, before, strict=True):
            np.testing.assert_allclose(runtime.predict(text).probabilities, old.probabilities, atol=0.02)
        require_same(bundle)


def test_answers_with_edits_do_not_need_usearch(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("jazz at noon", "c")
    import subprocess

    script = (
        "import sys\n"
        "from reaugkd import Runtime\n"
        "with Runtime.open(sys.argv[1]) as runtime:\n"
        "    print(runtime.predict('jazz at noon').label, runtime.predict('noon').neighbours[0].row >= 0)\n"
        "print(*[name for name in ('usearch', 'numkong') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, bundle], capture_output=True, text=True, check=True)
    assert done.stdout == "c True\n\n"


class Gate:
    """Holds the opening of sessions until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.free = threading.Event(), threading.Event()
        original = RetrievalSession.__init__

        def held(session: RetrievalSession, *arguments: Any, **named: Any) -> None:
            self.reached.set()
            assert self.free.wait(60)
            original(session, *arguments, **named)

        monkeypatch.setattr(RetrievalSession, "__init__", held)


def test_a_compaction_does_not_stop_the_other_threads(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("jazz at noon", "c")
        before = runtime.predict("jazz at noon")
        gate = Gate(monkeypatch)
        runtime.kb.compact()
        answers: list[str] = []
        first = threading.Thread(target=lambda: answers.append(runtime.predict("jazz at noon").label))
        first.start()
        assert gate.reached.wait(60)  # it opens a session with the new rows
        assert runtime.predict("jazz at noon") == before and answers == []
        gate.free.set()
        first.join()
        assert answers == ["c"] == [runtime.predict("jazz at noon").label]


def test_an_edit_after_a_compaction_is_in_the_next_answer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although another thread is still opening a session."""
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("jazz at noon", "c")
        runtime.predict("noon")
        gate = Gate(monkeypatch)
        runtime.kb.compact()
        first = threading.Thread(target=lambda: runtime.predict("noon"))
        first.start()
        assert gate.reached.wait(60)
        runtime.kb.relabel({runtime.knowledge_base.id(len(runtime.knowledge_base) - 1): "a"})
        threading.Timer(0.05, gate.free.set).start()
        assert runtime.predict("jazz at noon").label == "a"
        first.join()


def test_an_edit_before_a_compaction_is_in_the_next_answer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although no text was answered in between, and another thread is still opening a session."""
    with Runtime.open(bundle) as runtime:
        runtime.predict("noon")
        editor, gate = runtime.kb, Gate(monkeypatch)
        editor.add("jazz at noon", "c")
        editor.compact()
        first = threading.Thread(target=lambda: runtime.predict("noon"))
        first.start()
        assert gate.reached.wait(60)
        threading.Timer(0.05, gate.free.set).start()
        assert runtime.predict("jazz at noon").neighbours[0].text == "jazz at noon"
        first.join()


def test_a_replaced_model_is_not_opened_later(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        with (bundle / MODEL_FILE).open("ab") as file:
            file.write(b"\x42\x00")  # an empty field of the model
        with pytest.raises(BundleIntegrityError, match="was replaced after the bundle was opened"):
            runtime.with_retrieval("never").predict("noon")


def test_a_model_that_is_gone_is_an_error_of_the_bundle(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        (bundle / MODEL_FILE).unlink()
        assert runtime.predict("noon").retrieved
        with pytest.raises(BundleIntegrityError, match="No such file"):
            runtime.with_retrieval("never").predict("noon")
        runtime.kb.add("noon", "b")
        runtime.kb.compact()
        with pytest.raises(BundleIntegrityError, match="No such file"):  # the new rows need a new session
            runtime.predict("noon")


def test_a_model_of_old_operators_is_searched_by_usearch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime.open(bundle, search="usearch") as runtime:
        expected = runtime.predict("noon")
    monkeypatch.setattr(sessions, "OLDEST_OPSET", 99)
    with Runtime.open(bundle) as runtime:
        assert runtime.search == "usearch" and runtime.predict("noon") == expected
        runtime.kb.add("noon", "b")
        runtime.kb.compact()
        assert runtime.search == "usearch" and runtime.predict("noon").neighbours[0].text == "noon"
    with pytest.raises(BundleError, match="newer ONNX operators"):
        Runtime.open(bundle, search="graph")


def test_a_removed_neighbour_needs_no_usearch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime.open(bundle) as editing:
        editing.kb.remove([editing.predict("noon").neighbours[0].id])
    with Runtime.open(bundle, search="usearch") as runtime:
        expected = runtime.predict("noon")
    monkeypatch.setattr(hnsw, "_mapped", None)
    with Runtime.open(bundle) as runtime:
        found = runtime.predict("noon")
        assert runtime.search == "graph"
    assert found.neighbours.rows.tolist() == expected.neighbours.rows.tolist()
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=1e-3)


def test_embeddings_of_another_length_are_searched_by_usearch(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    model = onnx.load(str(path / MODEL_FILE))
    (last,) = (node for node in model.graph.node if "embedding" in node.output)
    last.output[:] = ["short" if name == "embedding" else name for name in last.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(3, np.float32), "three"))
    model.graph.node.append(helper.make_node("Mul", ["short", "three"], ["embedding"]))
    onnx.save(model, str(path / MODEL_FILE))
    reseal(path)
    with Runtime.open(path) as runtime:
        assert runtime.search == "usearch" and runtime.predict("noon").retrieved
    with pytest.raises(BundleError, match="have length 1"):
        Runtime.open(path, search="graph")


@pytest.mark.parametrize("chosen", [{"budget_ms": 5.0}, {"retrieval": "gated"}])
def test_the_graph_has_neither_gate_nor_budget(tmp_path: Path, chosen: dict[str, Any]) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    reseal(path, gate={"threshold": 0.9, "epsilon": 0.1, "delta": 0.05, "rows": 10, "losses": 0, "retrieved": 0.0})
    with pytest.raises(UsageError, match="neither a gate nor a budget"):
        Runtime.open(path, search="graph", **chosen)
    with Runtime.open(path, search="graph") as runtime, pytest.raises(UsageError, match="neither a gate nor a budget"):
        runtime.with_retrieval("gated")
    with Runtime.open(path, **chosen) as runtime:
        assert runtime.search == "usearch"
        with pytest.raises(UsageError, match="neither a gate nor a budget"):
            runtime.with_retrieval(runtime.retrieval, "graph")


def test_more_added_rows_than_are_compared_one_by_one(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are indexed, with the same answers."""
    with Runtime.open(bundle) as runtime:
        runtime.kb.add([str(text) for text in tiny_texts(40, seed=60)], "b", auto_compact=False)
        query = runtime.student.run(runtime.tokenizer.encode("noon"))[1]
        one_by_one = runtime.knowledge_base.search(query, 8)
        answer = runtime.predict("noon")
        monkeypatch.setattr("reaugkd.kb.edits.added_rows.MOST_COMPARED", 10)
        indexed: SearchResult = runtime.knowledge_base.search(query, 8)
        np.testing.assert_allclose(indexed.similarities, one_by_one.similarities, atol=2e-3)
        assert runtime.predict("noon").label == answer.label
