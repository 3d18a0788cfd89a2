"""Without usearch: small knowledge bases are searched and edited all the same, by comparison with every key."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command_line import refused
from support.heldout_bundle import TEXTS
from support.tiny_bundle import build_tiny_bundle
from support.without_usearch import without_usearch

from reaugkd import DependencyError, Runtime
from reaugkd.kb.edits import added_rows
from reaugkd.kb.index import hnsw
from reaugkd.kb.index.config import DTYPES, IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 300])
def test_a_search_finds_the_same(dtype: str, rows: int, tmp_path: Path) -> None:
    rng, config = np.random.default_rng(rows), IndexConfig(24, dtype=dtype, expansion_search=300)
    keys, queries = (rng.standard_normal((n, 24)).astype(np.float32) for n in (rows, 20))
    VectorIndex.build(keys, config).save(tmp_path / "index")
    expected = VectorIndex.view(tmp_path / "index", config).search_many(queries, 8)
    with without_usearch():
        index = VectorIndex.view(tmp_path / "index", config)
        found = index.search_many(queries, 8)
        one = index.search(queries[0], 8)
    # usearch itself computes with 16 bits, and may swap neighbours that are as near.
    np.testing.assert_allclose(found[1], expected[1], atol={"f16": 2e-3}.get(dtype, 1e-5))
    if dtype != "f16":
        np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(one[0], found[0][0])


def edited(bundle: Path) -> list[tuple[str, bool]]:
    """The answers after edits of every kind, each of which needs a search."""
    with Runtime.open(bundle) as runtime:
        text = runtime.knowledge_base.text(3)
        assert isinstance(text, str)
        runtime.kb.add([text, "jazz at noon"], "a")
        runtime.kb.add(text, "b", guard=0.9)
        runtime.kb.add("cook milk", "d", new_labels=True)
        runtime.kb.relabel({text: "c"})
        runtime.kb.add("loud music", "b")
        runtime.kb.undo()
        runtime.kb.remove(runtime.knowledge_base.id(row) for row in range(4, 60, 2))
        runtime.kb.verify()
        runtime.kb.wait()  # until the classifier of the new label is fitted
        answers = [runtime.predict(one) for one in TEXTS]
    with Runtime.open(bundle, budget_ms=1e4) as runtime:
        assert all(answer.retrieved for answer in map(runtime.predict, TEXTS))
    return [(answer.label, answer.retrieved) for answer in answers]


def test_edits_and_answers_are_the_same(bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    expected = edited(bundle)
    with without_usearch():
        assert edited(other) == expected


def test_any_number_of_rows_can_be_added(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(added_rows, "MOST_COMPARED", 3)
    with without_usearch(), Runtime.open(bundle) as runtime:
        runtime.kb.add(TEXTS[:6], "a")
        assert [runtime.predict(text).label for text in TEXTS[:6]] == ["a"] * 6


def test_what_needs_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle")
    with without_usearch():
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz at noon", "a")
        error = refused("kb", "compact", bundle)
        assert "building an index of keys needs usearch" in error and "pip install 'usearch<3'" in error
        assert 'search "usearch" needs usearch' in refused("predict", bundle, "noon", "--search", "usearch")
        monkeypatch.setattr(hnsw, "MOST_COMPARED_BYTES", 0)
        with pytest.raises(DependencyError, match="searching 64 rows needs usearch"):
            Runtime.open(bundle, budget_ms=1.0)
