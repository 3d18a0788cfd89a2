"""Digests instead of texts: the rows they find and the texts they hide (docs/explanation/privacy.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command_line import ok
from support.heldout_bundle import build_heldout_bundle
from support.short_bench import short_bench
from support.tiny_bundle import build_tiny_bundle, reseal
from support.workshop import Workshop

from reaugkd import BundleError, BundleIntegrityError, KnowledgeBase, Runtime, UsageError
from reaugkd.export.bundle.prototypes import Condensation, build
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.texts import TextDigests
from reaugkd.runtime.bundle.bundle import Bundle

CONFIG = IndexConfig(4)
single = st.text(max_size=20)
inputs = st.one_of(single, st.tuples(single, single))


def knowledge(texts: Any, rows: int) -> KnowledgeBase:
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.ones(3), rows).astype(np.float32)
    return KnowledgeBase.build(rng.standard_normal((rows, 4)).astype(np.float32), soft, config=CONFIG, texts=texts)


def hashed(salt: bytes, text: object) -> str:
    """The definition, computed independently."""
    return hashlib.sha256(salt + json.dumps(text, ensure_ascii=False).encode()).hexdigest()


def test_a_digest_is_sha256_of_salt_and_json(tmp_path: Path) -> None:
    texts = ["noon", 'Größe "5" \n', ("a", "b"), "", "noon"]
    knowledge(TextDigests.of(texts), 5).save(tmp_path)
    table = np.load(tmp_path / "text_digests.npy")
    assert table.dtype == np.uint8 and table.shape == (6, 32)
    kb = KnowledgeBase.open(tmp_path, CONFIG)
    assert [kb.text_digest(row) for row in range(5)] == [hashed(table[0].tobytes(), text) for text in texts]
    assert [kb.text(row) for row in range(5)] == [None] * 5
    assert not (tmp_path / "texts.jsonl").exists()
    assert kb.nbytes()["texts"] == table.nbytes
    assert kb.rows_of("noon") == [0, 4] and kb.rows_of(("a", "b")) == [2]
    assert kb.rows_of("Noon") == kb.rows_of("a") == []


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(inputs, max_size=12), others=st.lists(inputs, max_size=5))
def test_texts_and_digests_find_the_same_rows(texts: list[Any], others: list[Any]) -> None:
    plain, digests = knowledge(texts, len(texts)), knowledge(TextDigests.of(texts), len(texts))
    for text in [*texts, *others, '["a", "b"]', ("a", "b")]:
        expected = [row for row, other in enumerate(texts) if other == text]
        assert digests.rows_of(text) == plain.rows_of(text) == expected


def test_lone_surrogates_have_digests_too() -> None:
    kb = knowledge(TextDigests.of(["\ud800", "a"]), 2)
    assert kb.rows_of("\ud800") == [0]


def test_every_knowledge_base_has_another_salt() -> None:
    one, two = TextDigests.of(["noon"] * 3), TextDigests.of(["noon"] * 3)
    assert one[0] == one[1] and one[0] != two[0] and one.table[0].any()
    assert len({TextDigests.of(["noon"])[0] for _ in range(20)}) == 20


def test_where_nothing_is_kept_nothing_is_found() -> None:
    kb = knowledge(None, 3)
    assert kb.text_digest(0) is None and kb.digests is None
    with pytest.raises(UsageError, match=r"keeps no texts, and no digests.*--kb-texts"):
        kb.rows_of("noon")
    assert knowledge(["a"] * 3, 3).text_digest(0) is None
    assert knowledge(TextDigests.of([]), 0).rows_of("a") == knowledge([], 0).rows_of("a") == []


def test_prototypes_and_other_labels_keep_them() -> None:
    kb = knowledge(TextDigests.of([f"text {row}" for row in range(20)]), 20)
    prototypes = Condensation.of(kb.keys(), np.asarray(kb.soft_labels)).prototypes(8)
    small = build(kb, prototypes, CONFIG)
    assert [small.text_digest(at) for at in range(8)] == [kb.text_digest(row) for row in prototypes.rows]
    assert small.rows_of(f"text {prototypes.rows[3]}") == [3]
    assert build(kb, prototypes, CONFIG, keep_texts=False).digests is None
    assert kb.with_soft_labels(np.asarray(kb.soft_labels)).text_digest(7) == kb.text_digest(7)


def test_a_compact_bundle_keeps_them_within_its_bytes(tmp_path: Path) -> None:
    """Every other reader of a bundle treats digests as no texts."""
    path = build_heldout_bundle(tmp_path / "full", rows=200, texts="hash")
    size = sum(file.stat().st_size for file in (path / "kb").iterdir())
    for most in (int(0.7 * size), int(0.4 * size)):
        out = tmp_path / f"{most}"
        told = json.loads(ok("condense", path, "--out", out, "--max-bytes", most, "--json", "-").out)
        assert 0.9 * most < told["bytes"] <= most
        assert told["bytes"] == sum(file.stat().st_size for file in (out / "kb").iterdir())
    with Runtime.open(path) as full, Runtime.open(out) as small:
        before, after = full.knowledge_base, small.knowledge_base
        assert {after.text_digest(row) for row in range(len(after))} <= {before.text_digest(row) for row in range(200)}
    with short_bench():
        assert "golden texts" in ok("bench", path, "--seconds", "0.05", "--processes", "0").out
    assert "(the bundle stores no texts)" in ok("predict", path, "noon", "--explain").out


@pytest.mark.parametrize(
    "table",
    [np.zeros((3, 32), np.uint8), np.zeros((4, 31), np.uint8), np.zeros((4, 32), np.int8), np.zeros((0, 32), np.uint8)],
)
def test_digests_that_do_not_fit_are_refused(tmp_path: Path, table: Any) -> None:
    knowledge(TextDigests.of(["a", "b", "c"]), 3).save(tmp_path)
    np.save(tmp_path / "text_digests.npy", table)
    with pytest.raises(BundleError, match=r"do not match each other.*uint8 \(4, 32\)|cannot be read.*i1") as caught:
        KnowledgeBase.open(tmp_path, CONFIG)
    assert caught.value.path == str(tmp_path / "text_digests.npy")
    with pytest.raises(UsageError, match="digests of the wrong shape"):
        knowledge(TextDigests.of(["a", "b"]), 3)


@pytest.mark.parametrize("name", ["kb/text_digests.npy", "heldout.npz"])
def test_a_file_that_would_be_read_must_be_listed(tmp_path: Path, name: str) -> None:
    """A seal and a signature cover only listed files: other files must not be read."""
    path = build_tiny_bundle(tmp_path / "tiny")
    np.save(path / name, np.zeros((65, 32), np.uint8))
    (path / f"{name}.npy").rename(path / name) if name.endswith("npz") else None
    with pytest.raises(BundleIntegrityError, match="the manifest does not list a file of the bundle") as caught:
        Bundle.open(path)
    assert caught.value.path == str(path / name)
    reseal(path)
    Bundle.open(path)


@pytest.fixture(scope="module")
def bundle(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workshop's bundle with digests."""
    path = tmp_path_factory.mktemp("digests") / "bundle"
    ok("export", workshop.run, "--out", path, "--target", "avx2", "--allow-quality-loss", "--kb-texts", "hash")
    return path


class TestExport:
    def test_it_answers_as_with_texts_and_finds_every_row(self, workshop: Workshop, bundle: Path) -> None:
        with Runtime.open(workshop.bundle) as plain, Runtime.open(bundle) as runtime:
            ours, theirs = runtime.knowledge_base, plain.knowledge_base
            assert len(ours) == len(theirs) > 100
            for row in range(0, len(ours), 7):
                text = theirs.text(row)
                assert text is not None and row in ours.rows_of(text) == theirs.rows_of(text)
                answer, expected = runtime.predict(text), plain.predict(text)
                assert answer.probabilities.tobytes() == expected.probabilities.tobytes()
                assert {near.text for near in answer.neighbours} == {None}

    def test_no_text_is_in_any_file(self, workshop: Workshop, bundle: Path) -> None:
        with Runtime.open(workshop.bundle) as plain:
            texts = [str(plain.knowledge_base.text(row)) for row in range(len(plain.knowledge_base))]
        long = [text.encode() for text in texts if len(text.split()) > 3]
        assert long
        for file in (file for file in bundle.rglob("*") if file.is_file()):
            content = file.read_bytes()
            assert not any(text in content for text in long), file
        assert "rows with digests of their texts" in ok("inspect", bundle).out

    def test_a_guess_is_confirmed_by_the_keys_alone(self, workshop: Workshop, bundle: Path) -> None:
        """docs/explanation/privacy.md: a slow digest would not help, because the keys confirm a guess."""
        with Runtime.open(workshop.bundle) as plain, Runtime.open(bundle) as runtime:
            confirmed = []
            for row in range(0, len(plain.knowledge_base), 7):
                text = plain.knowledge_base.text(row)
                assert text is not None
                near = runtime.predict(text).neighbours
                confirmed.append(near[0].row == row and near[0].similarity > 0.995)
            assert np.mean(confirmed) > 0.9
