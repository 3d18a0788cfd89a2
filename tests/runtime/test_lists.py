"""Bundles with inverted lists: answers, edits, compaction, and who searches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.listed_bundle import build_listed_bundle
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import BundleError, BundleIntegrityError, Prediction, Runtime
from reaugkd.kb.index import lists as module
from reaugkd.kb.index.lists import LISTS_FILE
from reaugkd.runtime import opening
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.opening import base_of

TEXTS = tiny_texts(30, seed=5)
FILE = f"kb/{LISTS_FILE}"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return build_listed_bundle(tmp_path / "bundle")


def without_lists(bundle: Path) -> Path:
    other = Path(shutil.copytree(bundle, bundle.parent / "exact"))
    (other / FILE).unlink()
    reseal(other)
    return other


def require_same(found: Prediction, expected: Prediction) -> None:
    assert found.label == expected.label
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert found.retrieval_probabilities is not None and expected.retrieval_probabilities is not None
    np.testing.assert_allclose(found.retrieval_probabilities, expected.retrieval_probabilities, atol=1e-5)
    near = [[one.similarity for one in answer.neighbours] for answer in (found, expected)]
    np.testing.assert_allclose(*near, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"labels": [f"label {number}" for number in range(20)], "label_loss": 0.05}, {"pairs": True}]
)
def test_all_lists_give_the_answers_of_all_rows(tmp_path: Path, options: dict[str, Any]) -> None:
    bundle = build_listed_bundle(tmp_path / "bundle", **options)
    texts = tiny_texts(30, seed=5, pairs="pairs" in options)
    with Runtime.open(bundle) as lists, Runtime.open(without_lists(bundle)) as exact:
        assert base_of(lists.knowledge_base).lists is not None and base_of(exact.knowledge_base).lists is None
        assert lists.search == exact.search == "graph"
        for text in texts:
            require_same(lists.predict(text), exact.predict(text))
            assert lists.predict(text) == lists.predict(text)


def test_some_lists_give_most_neighbours(tmp_path: Path) -> None:
    bundle = build_listed_bundle(tmp_path / "bundle", rows=400, probes=12)
    with Runtime.open(bundle) as lists, Runtime.open(without_lists(bundle)) as exact:
        shares = []
        for text in TEXTS:
            found, all_of_them = ([one.row for one in run.predict(text).neighbours] for run in (lists, exact))
            assert len(set(found)) == len(found) == 8
            shares.append(np.isin(all_of_them, found).mean())
        assert np.mean(shares) > 0.8


def test_auto_searches_lists_where_all_rows_would_be_too_many(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_GRAPH_BYTES", 0)
    for path, expected in ((bundle, "graph"), (without_lists(bundle), "usearch")):
        with Runtime.open(path) as runtime:
            assert runtime.search == expected
        with Runtime.open(path, search="usearch") as runtime:
            assert runtime.search == "usearch" and runtime.predict("milk").neighbours


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lists for few rows too."""
    monkeypatch.setattr(module, "FEWEST_ROWS", 1)
    monkeypatch.setattr(module, "_MOST_SHARE", 1.0)
    yield


@pytest.mark.usefixtures("everywhere")
def test_edits_and_their_compaction_give_the_same_answers(bundle: Path, tmp_path: Path) -> None:
    export = shutil.copytree(bundle, tmp_path / "export")
    with Runtime.open(bundle) as lists, Runtime.open(without_lists(bundle)) as exact:
        kb = lists.knowledge_base
        gone = [kb.text(row) for row in range(0, 60, 3)]
        for runtime in (lists, exact):
            runtime.kb.add(tiny_texts(4, seed=8), "b")
            runtime.kb.remove(texts=gone)
            runtime.kb.add("late night jazz", "new one", new_labels=True)
            runtime.kb.wait()  # until the classifier of the new label is fitted
        assert base_of(lists.knowledge_base).lists is not None
        for text in [*TEXTS, "late night jazz"]:
            require_same(lists.predict(text), exact.predict(text))
        lists.kb.compact()
        lists.kb.wait()
        assert lists.kb.verify(export).replayed == 4
        made = base_of(lists.knowledge_base).lists
        assert made is not None and made.table.max() == len(lists.knowledge_base) - 1
        assert lists.search == "graph"
        assert lists.predict("late night jazz").label == "new one"
        answers = [lists.predict(text) for text in TEXTS]
    with Runtime.open(bundle) as later:
        assert [later.predict(text) for text in TEXTS] == answers
    folder = bundle / "generations" / "1"
    assert (folder / LISTS_FILE).is_file()
    damaged = (folder / LISTS_FILE).read_bytes()
    (folder / LISTS_FILE).write_bytes(damaged[:-4] + bytes([damaged[-4] ^ 1]) + damaged[-3:])
    with pytest.raises(BundleIntegrityError, match=LISTS_FILE):
        Runtime.open(bundle)


def test_few_rows_lose_their_lists_when_they_are_compacted(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("late night jazz", "b")
        runtime.kb.compact()
        assert base_of(runtime.knowledge_base).lists is None and runtime.search == "graph"
        (bundle / "generations/1" / LISTS_FILE).touch()
    with pytest.raises(BundleIntegrityError, match="does not list"):
        Runtime.open(bundle)


def test_lists_of_other_keys_than_int8_are_refused(tmp_path: Path, bundle: Path) -> None:
    other = build_tiny_bundle(tmp_path / "other", rows=120)
    shutil.copyfile(bundle / FILE, other / FILE)
    with pytest.raises(BundleIntegrityError, match="does not list"):
        Bundle.open(other)
    reseal(other)
    with pytest.raises(BundleError, match="keys of f16"):
        Runtime.open(other)
