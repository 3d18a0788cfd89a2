"""Edits of unusual kinds: extreme odds, odd names, nothing left, undone undos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd import ReaugkdError, Row, Runtime, StorageError, UsageError
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import blend_batch, blend_edited
from reaugkd.runtime.editing.writer import KnowledgeWriter


def test_all_neighbours_of_new_labels(bundle: Path) -> None:
    """If the neighbours have only new labels, old labels get nothing, for any odds."""
    with Runtime.open(bundle) as runtime:
        runtime.kb.remove(ids=[runtime.knowledge_base.id(row) for row in range(120)], auto_compact=False)
        runtime.kb.add([Row(text, "new") for text in tiny_texts(40, seed=5)], new_labels=True, auto_compact=False)
        for text in tiny_texts(60, seed=6):
            answer = runtime.predict(text)
            assert answer.label == "new" and answer.probabilities.min() >= 0


@pytest.mark.parametrize("odds", [1e-3, 0.4, 1.0, 7.0, 1e3])
def test_odds_of_all_sizes(odds: float) -> None:
    config = BlendConfig(k=3, tau=0.1, student_weight=0.4)
    student, near = np.array([0.7, 0.3], np.float32), np.array([0.9, 0.8, 0.7], np.float32)
    for labels in ([[0, 0, 1]] * 3, [[1, 0, 0], [0, 0, 1], [0.5, 0.25, 0.25]], [[1, 0, 0]] * 3):
        found = blend_edited(student, near, np.array(labels, np.float32), config, 2, odds=odds)
        assert found.probabilities.min() >= 0 and found.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert 0 <= found.student_weight <= 0.4 + 1e-9


@pytest.mark.parametrize("far", [0.58, 0.5, 0.1, -0.9, None])
def test_nearly_all_neighbours_of_new_labels(far: float | None) -> None:
    """The old labels share what the classifier leaves them, also where the neighbours leave them next to nothing."""
    config = BlendConfig(k=3, tau=0.02, student_weight=0.4)
    student, classified = np.array([0.7, 0.3], np.float32), np.array([0.1, 0.1, 0.8], np.float32)
    near = np.array([0.9, 0.85, 0.8 if far is None else far], np.float32)
    labels = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1] if far is None else [0.25, 0.75, 0]], np.float32)
    # With the weight 0.4, the old labels' two parts are 0.4 [.7, .3] + 0.6 [.25, .75], or the student's alone.
    old = np.array([0.7, 0.3] if far is None else [0.43, 0.57])
    found = blend_edited(student, near, labels, config, 2, classified=classified)
    np.testing.assert_allclose(found.probabilities, [*0.2 * old, 0.8], atol=1e-6)
    many = blend_batch(student[np.newaxis], near[np.newaxis], labels[np.newaxis], config)
    np.testing.assert_allclose(many.probabilities[0], old, atol=1e-6)


@pytest.mark.parametrize("label", ["", "\x00", "a\nb", "half \ud800", "x" * 10_001])
def test_labels_that_cannot_be_names(bundle: Path, label: str) -> None:
    with Runtime.open(bundle) as runtime:
        with pytest.raises(UsageError, match="name is unusable"):
            runtime.kb.add("noon", label, new_labels=True)
        assert runtime.kb.log() == []


def test_labels_of_any_script(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        for number, label in enumerate(("Lieferung übergroß", "配送", "توصيل", "🚚", "no\xa0break")):
            runtime.kb.add(f"noon {number}", label, new_labels=True)
        runtime.kb.compact()
    with Runtime.open(bundle) as runtime:
        assert runtime.predict("noon 1").label in runtime.labels and len(runtime.labels) == 8


def test_an_edit_that_cannot_be_written_is_refused(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        for wrong in (
            lambda: runtime.kb.add("noon", "a", why=None),  # type: ignore[arg-type]
            lambda: runtime.kb.undo(who=7),  # type: ignore[arg-type]
            lambda: runtime.kb.add("noon", 5, new_labels=True),  # type: ignore[arg-type]
            lambda: runtime.kb.remove(["x"]),  # type: ignore[list-item]
            lambda: runtime.kb.remove(texts="noon"),
            lambda: runtime.kb.remove([2**70]),
            lambda: runtime.kb.relabel({2.5: "a"}),  # type: ignore[dict-item]
        ):
            with pytest.raises(ReaugkdError):
                wrong()
        assert runtime.kb.log() == []
        rows = {np.int64(runtime.knowledge_base.id(3)): {"a": np.float32(0.5), "b": np.float32(0.5)}}
        assert runtime.kb.relabel(rows).entry is not None  # type: ignore[arg-type]
    Runtime.open(bundle).close()


def test_soft_labels_are_taken_back_and_recognised(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        row = runtime.knowledge_base.id(3)
        for _ in range(2):
            runtime.kb.relabel({row: {"a": 0.7, "b": 0.3}})
            runtime.kb.compact()
            assert runtime.kb.relabel({row: {"a": 0.7, "b": 0.3}}).unchanged == 1
            runtime.kb.undo()
            assert not runtime.kb.diff()
        soft = Row("noon at night", soft={"a": 0.1, "c": 0.9})
        runtime.kb.add(soft)
        assert runtime.kb.add(soft).unchanged == 1


def test_without_texts_a_correction_replaces_the_last_one(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", texts=False, dtype="i8")
    with Runtime.open(bundle) as runtime:
        for turn in range(45):
            label = "abc"[turn % 3]
            runtime.kb.add("jazz at noon", label)
            assert runtime.predict("jazz at noon").label == label
            if turn % 20 == 5:
                runtime.kb.compact()
        assert len(runtime.knowledge_base) == 65


def test_a_knowledge_base_without_texts_stays_so(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", texts=False)
    with Runtime.open(bundle) as runtime:
        runtime.kb.remove([runtime.knowledge_base.id(row) for row in range(64)])
        runtime.kb.compact()
        runtime.kb.add("jazz at noon", "a")
        runtime.kb.compact()
        assert runtime.predict("jazz").neighbours[0].text is None
    assert not any(b"jazz" in path.read_bytes() for path in (bundle / "generations").rglob("*") if path.is_file())


def test_only_held_out_rows_are_left(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        kb = runtime.knowledge_base
        runtime.kb.remove([kb.id(row) for row in range(90)], auto_compact=False)
        done = runtime.kb.relabel({kb.id(100): "new"}, new_labels=True)
        assert done.change.new_label_odds == 1.0


def test_undo_of_an_undo_and_undo_again(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("noon", "a")
        runtime.kb.undo()
        with pytest.raises(UsageError, match="taken back already"):
            runtime.kb.undo(1)
        runtime.kb.undo(2)
        done = runtime.kb.undo()
        assert done.entry is not None and done.entry.undoes == 1
        with pytest.raises(UsageError, match="no edit to take back"):
            runtime.kb.undo()


def test_diff_shows_the_rows_of_that_time(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        row = runtime.knowledge_base.id(5)
        old = runtime.knowledge_base.soft_labels[5]
        runtime.kb.add("noon", "a")
        runtime.kb.remove([row])
        runtime.kb.undo()
        runtime.kb.relabel({row: "new"}, new_labels=True)
        (found,) = runtime.kb.diff(1, 2)
        assert found.kind == "removed" and found.old is not None and "new" not in found.old.shares
        shares = [found.old.shares.get(name, 0.0) for name in "abc"]
        np.testing.assert_allclose(shares, old, atol=1e-3)


def test_an_edit_is_made_though_its_fold_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(KnowledgeWriter, "write_snapshot", full)
    with Runtime.open(bundle) as runtime:
        done = runtime.kb.add([f"noon {number}" for number in range(300)], "a")
        assert done.entry is not None and isinstance(done.not_compacted, StorageError)
        assert len(runtime.knowledge_base) == 420


def test_there_is_nothing_to_fold_in(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        with pytest.raises(UsageError, match="nothing to compact"):
            runtime.kb.compact()
        assert (bundle / "kb").is_dir() and not (bundle / "generations").exists()


def test_an_added_row_that_a_later_edit_changed_is_not_undone(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("noon", "a")
        runtime.kb.add("noon", "b")
        with pytest.raises(UsageError, match="a later edit changed a row of this one"):
            runtime.kb.undo(1)
        runtime.kb.undo(2)
        assert runtime.predict("noon").label == "a"
        runtime.kb.undo(1)
        assert not runtime.kb.diff()


def test_a_restored_row_that_a_later_edit_changed_is_not_removed_again(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        row = runtime.knowledge_base.id(3)
        runtime.kb.remove([row])
        runtime.kb.undo()
        runtime.kb.relabel({row: "new"}, new_labels=True)
        with pytest.raises(UsageError, match="a later edit changed a row of this one"):
            runtime.kb.undo(2)
        runtime.kb.undo(3)
        runtime.kb.undo(2)
        assert [found.id for found in runtime.kb.diff()] == [row]


@pytest.mark.parametrize("number", [3, 100])
def test_a_row_given_by_its_text_and_its_id_is_relabelled_once(bundle: Path, number: int) -> None:
    with Runtime.open(bundle) as runtime:
        kb = runtime.knowledge_base
        row, text = kb.id(number), kb.text(number)
        assert isinstance(text, str)
        for first, second in ((row, text), (text, row)):
            runtime.kb.relabel({first: "new", second: "new"}, new_labels=True)  # type: ignore[dict-item]
            runtime.kb.undo()
            assert not runtime.kb.diff()
            with pytest.raises(UsageError, match="two labels"):
                runtime.kb.relabel({first: "a", second: "b"})  # type: ignore[dict-item]
