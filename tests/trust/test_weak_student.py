"""The whole path with a student that its neighbours beat: train, export, predict, eval, fuse, edit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.command_line import ok
from support.tiny_models import LABELS, make_split
from support.workshop import Workshop

from reaugkd import Prediction, Runtime

TEST = make_split(150, seed=1)
TEXTS, RIGHT = TEST.texts, TEST.labels or []
GOLD = np.array([LABELS.index(label) for label in RIGHT])
SEARCHES = ("graph", "usearch")


@pytest.fixture
def bundle(workshop: Workshop, tmp_path: Path) -> Path:
    """A copy of the workshop's bundle that a test may edit."""
    return Path(shutil.copytree(workshop.bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module", params=SEARCHES)
def runtime(workshop: Workshop, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with Runtime.open(workshop.bundle, search=request.param) as opened:
        assert opened.search == request.param
        yield opened


def blended(runtime: Runtime, text: str, found: Prediction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The student's probabilities and the blend with the neighbours found, in float64."""
    blend, kb = runtime.manifest.blend, runtime.knowledge_base
    scores = runtime.student.run(runtime.tokenizer.encode(text))[0].astype(np.float64) / blend.student_temperature
    student = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    votes = np.exp(np.array([(one.similarity - 1) / blend.tau for one in found.neighbours]))
    labels = np.array([kb.soft_labels[one.row] for one in found.neighbours], np.float64)
    retrieved = votes / votes.sum() @ (labels / labels.sum(axis=1, keepdims=True))
    return student, blend.student_weight * student + (1 - blend.student_weight) * retrieved


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test rows in a file."""
    path = tmp_path_factory.mktemp("data") / "test.csv"
    path.write_text("\n".join(["text,label", *map(",".join, zip(TEXTS, RIGHT, strict=True))]))
    return path


def accuracy(probabilities: list[NDArray[Any]]) -> float:
    return float((np.argmax(probabilities, axis=1) == GOLD).mean())


def evaluated(bundle: Path, data: Path) -> dict[str, dict[str, float]]:
    found = json.loads(ok("eval", bundle, "--data", data, "--split", "all", "--json", "-").out)
    return {row["system"]: row for row in found["rows"]}


def test_the_neighbours_change_answers_and_most_of_them_for_the_better(runtime: Runtime) -> None:
    assert 0.1 < runtime.manifest.blend.student_weight < 0.7
    found = [runtime.predict(text) for text in TEXTS]
    expected = [blended(runtime, text, one) for text, one in zip(TEXTS, found, strict=True)]
    for one, (student, both) in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.student_probabilities, student, atol=1e-5)
        np.testing.assert_allclose(one.probabilities, both, atol=1e-5)
        assert one.label == LABELS[both.argmax()]
    students, blends = ([one[place] for one in expected] for place in (0, 1))
    assert accuracy(blends) >= accuracy(students) + 0.03
    assert (np.argmax(students, axis=1) != np.argmax(blends, axis=1)).mean() > 0.05


def test_the_neighbours_are_the_nearest_rows(runtime: Runtime) -> None:
    """But for the rounding of keys and queries to 8 bits, and for the few rows that usearch misses."""
    keys = runtime.knowledge_base.keys().astype(np.float64)  # type: ignore[attr-defined]
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    k, recalled = runtime.manifest.blend.k, []
    for text in TEXTS:
        query = runtime.student.run(runtime.tokenizer.encode(text))[1].astype(np.float64)
        cosines = keys @ query / np.linalg.norm(query)
        found = runtime.predict(text).neighbours
        rows = [one.row for one in found]
        assert len(set(rows)) == k
        np.testing.assert_allclose([one.similarity for one in found], cosines[rows], atol=0.01)
        recalled.append((cosines[rows] >= np.sort(cosines)[-k] - 0.01).mean())
    assert np.mean(recalled) == 1.0 if runtime.search == "graph" else np.mean(recalled) > 0.97


def test_eval_scores_these_answers(workshop: Workshop, data: Path) -> None:
    scored = evaluated(workshop.bundle, data)
    with Runtime.open(workshop.bundle) as runtime:
        found = [runtime.predict(text) for text in TEXTS]
        expected = [blended(runtime, text, one) for text, one in zip(TEXTS, found, strict=True)]
    for system, place in (("student", 0), ("student+retrieval", 1)):
        probabilities = [one[place] for one in expected]
        assert scored[system]["accuracy"] == pytest.approx(accuracy(probabilities))
        nll = -np.log([one[label] for one, label in zip(probabilities, GOLD, strict=True)]).mean()
        assert scored[system]["nll"] == pytest.approx(nll, rel=1e-3)


def test_the_one_file_answers_alike(workshop: Workshop, tmp_path: Path) -> None:
    ok("fuse", workshop.bundle, "--out", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    needed = {one.name for one in session.get_inputs()}
    with Runtime.open(workshop.bundle, search="graph") as runtime:
        for text in TEXTS:
            ids = np.array([runtime.tokenizer.encode(text).ids])
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            (found,) = session.run(["probabilities"], {name: feeds[name] for name in needed})
            # The runtime rounds the query to 8 bits, a file for AVX2 does not.
            np.testing.assert_allclose(found[0], runtime.predict(text).probabilities, atol=0.02)


def test_edits_change_the_blend_and_undo_restores_it(bundle: Path, data: Path) -> None:
    before = evaluated(bundle, data)
    with Runtime.open(bundle) as runtime:
        removed = runtime.predict(TEXTS[0]).neighbours[0].id
    others = [TEXTS[0], *make_split(20, seed=8).texts]
    ok("kb", "remove", bundle, "--id", removed)
    require_blend(bundle, others, removed)
    ok("kb", "undo", bundle)
    ok("kb", "add", bundle, "--input", data)
    taught = evaluated(bundle, data)
    assert taught["student"] == before["student"]
    assert taught["retrieval"]["accuracy"] > before["retrieval"]["accuracy"]
    assert taught["student+retrieval"]["accuracy"] == 1.0 > before["student+retrieval"]["accuracy"]
    require_blend(bundle, others)
    ok("kb", "undo", bundle)
    restored = evaluated(bundle, data)
    for system, scores in before.items():
        assert restored[system]["accuracy"] == scores["accuracy"]
        assert restored[system]["nll"] == pytest.approx(scores["nll"], rel=1e-5)


def require_blend(bundle: Path, texts: list[str], removed: int | None = None) -> None:
    """With either search, texts that no edited row repeats get the blend, and no removed row is a neighbour."""
    for search in SEARCHES:
        with Runtime.open(bundle, search=search) as runtime:
            for text in texts:
                found = runtime.predict(text)
                assert removed not in {one.id for one in found.neighbours}
                if found.neighbours[0].similarity < 0.97:
                    np.testing.assert_allclose(found.probabilities, blended(runtime, text, found)[1], atol=1e-5)
