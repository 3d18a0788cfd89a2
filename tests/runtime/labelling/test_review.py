"""Review of labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.tiny_bundle import build_tiny_bundle

from reaugkd import KnowledgeBase, Row, Runtime, UsageError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.runtime.labelling.review import LabelIssue, Review, neighbour_votes, review

LABELS = ("a", "b", "c")


def reference(runtime: Runtime, kept: list[int], neighbours: int) -> dict[int, NDArray[np.float64]]:
    """The votes of every row in float64, by comparing all rows with each other."""
    kb: Any = runtime.knowledge_base
    base = getattr(kb, "base", kb)
    keys = np.array([base.keys()[row] if row < len(base) else kb.key(row) for row in kept], np.float64)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    cosines = keys @ keys.T
    found = {}
    for i, row in enumerate(kept):
        others = [
            j for j in np.argsort(-cosines[i], kind="stable")[: neighbours + 1] if j != i and cosines[i, j] < 0.99
        ]
        votes, total = np.zeros(kb.num_labels), 0.0
        for j in others[:neighbours]:
            weight, gold = np.exp((cosines[i, j] - 1) / 0.1), kb.label(kept[j])
            soft = np.asarray(kb.soft_labels[kept[j]], np.float64)
            votes += weight * (np.eye(kb.num_labels)[gold] if gold >= 0 else soft / soft.sum())
            total += weight
        found[row] = votes / total
    return found


@pytest.mark.parametrize("edits", [False, True])
@pytest.mark.parametrize(("neighbours", "block", "keys"), [(50, 256, 65536), (7, 3, 7)])
def test_the_votes_are_those_of_all_pairs_of_rows(
    tmp_path: Path, edits: bool, neighbours: int, block: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one block, and in many, the last of them smaller."""
    for name, value in (("NEIGHBOURS", neighbours), ("_BLOCK", block), ("_KEYS", keys)):
        monkeypatch.setattr(f"reaugkd.runtime.labelling.review.{name}", value)
    with Runtime.open(build_tiny_bundle(tmp_path / "bundle", rows=48, dtype="f32")) as runtime:
        kept = list(range(48))
        if edits:
            runtime.kb.add([Row("jazz at noon", "a"), Row("cheap bread", soft={"b": 0.6, "new": 0.4})], new_labels=True)
            runtime.kb.remove([1003, 1017])
            runtime.kb.relabel({1005: "c"})
            kept = [row for row in range(50) if row not in (3, 17)]
        expected, kb = reference(runtime, kept, neighbours), runtime.knowledge_base
        found = review(runtime, below=1.0)
        pinned = {5, 48} if edits else set()
        checked = [row for row in kept if kb.label(row) >= 0 and row not in pinned]
        assert (found.checked, found.edited) == (len(checked), len(pinned))
        assert found.unlabelled == len(kept) - len(checked) - len(pinned) > 0
        wrong = {kb.id(row) for row in checked if expected[row].argmax() != kb.label(row)}
        assert {issue.id for issue in found.issues} == wrong and len(wrong) > 5
        for issue in found.issues:
            votes = expected[next(row for row in checked if kb.id(row) == issue.id)]
            assert issue.self_confidence == pytest.approx(votes[runtime.labels.index(issue.label)], abs=1e-5)
            assert issue.suggested_probability == pytest.approx(votes.max(), abs=1e-5)
            assert issue.suggested == runtime.labels[votes.argmax()]
        scores = [issue.self_confidence for issue in found.issues]
        assert scores == sorted(scores)
        assert review(runtime, below=scores[3]).issues == tuple(
            i for i in found.issues if i.self_confidence < scores[3]
        )
        if edits:
            assert review(runtime, below=1.0, edited=True).checked == found.checked + 2


def clusters(gold: list[int], copies: int = 0) -> KnowledgeBase:
    """Rows around one direction for each of three true classes, in turn; the last ones repeat the first row."""
    rng = np.random.default_rng(0)
    keys = np.eye(3, 8)[np.arange(len(gold)) % 3] + 0.15 * rng.standard_normal((len(gold), 8))
    keys[len(gold) - copies :] = keys[0]
    config = IndexConfig(ndim=8, dtype="f32")
    return KnowledgeBase.build(keys.astype(np.float32), np.eye(3)[gold], config=config, gold=np.array(gold))


def reviewed(kb: KnowledgeBase, **options: Any) -> Review:
    state = SimpleNamespace(kb=kb, labels=LABELS)
    return review(SimpleNamespace(_current=lambda: state), **options)  # type: ignore[arg-type]


def test_wrong_labels_are_found_with_the_right_ones() -> None:
    gold = [row % 3 for row in range(60)]
    gold[7], gold[20] = 2, 0
    found = reviewed(clusters(gold))
    assert {(issue.id, issue.label, issue.suggested) for issue in found.issues} == {(7, "c", "b"), (20, "a", "c")}
    assert all(issue.suggested_probability > 0.9 and issue.text is None for issue in found.issues)


def test_copies_of_a_row_do_not_vouch_for_its_label() -> None:
    gold = [1, *(row % 3 for row in range(1, 60)), 1, 1, 1]
    assert {issue.id for issue in reviewed(clusters(gold, copies=3)).issues} == {0, 60, 61, 62}
    only_copies = clusters([1] * 5, copies=4)
    assert reviewed(only_copies) == Review((), 5, 0, 0)


@given(gold=st.lists(st.integers(-1, 2), min_size=2, max_size=30), row=st.integers(0, 29), label=st.integers(-1, 2))
def test_a_row_never_votes_for_itself(gold: list[int], row: int, label: int) -> None:
    row %= len(gold)
    other = [*gold[:row], label, *gold[row + 1 :]]
    before, after = (
        neighbour_votes(kb, np.array([row]), kb.keys()[[row]], kb.gold()) for kb in (clusters(gold), clusters(other))
    )
    assert (before == after).all()
    assert before.sum() == pytest.approx(1, abs=1e-5)


def test_an_unusable_limit_is_refused() -> None:
    for below in (0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="below is unusable"):
            reviewed(clusters([0, 1]), below=below)


def test_progress_counts_the_checked_rows() -> None:
    seen: list[tuple[int, int]] = []
    reviewed(clusters([0, 1, -1, 2] * 80), progress=lambda *done: seen.append(done))
    assert seen == [(240, 240)] or (seen[-1] == (240, 240) and seen == sorted(seen))


def test_an_issue_has_the_text(tmp_path: Path) -> None:
    for texts in (True, "hash", False):
        with Runtime.open(build_tiny_bundle(tmp_path / str(texts), texts=texts)) as runtime:  # type: ignore[arg-type]
            issues: tuple[LabelIssue, ...] = review(runtime, below=1.0).issues
            assert issues and all((issue.text is not None) == (texts is True) for issue in issues)
