"""Edits through an open runtime: visible at once, undo, preview, guard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.heldout_bundle import TEXTS, seen
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd import EditRefusedError, LabelError, Row, Runtime, TextError, UsageError
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.editing.new_labels.background_fit import BackgroundFit


class TestAdd:
    def test_a_text_is_answered_with_its_label_from_then_on(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
            for text in tiny_texts(6, seed=50):
                wrong = next(label for label in "abc" if label != runtime.predict(text).label)
                done = runtime.kb.add(text, wrong, why="a mistake")
                assert done.entry is not None and done.entry.why == "a mistake" and len(done.ids) == 1
                answer = runtime.predict(text)
                assert answer.label == wrong and answer.probability > 0.99
                assert answer.neighbours[0].text == text and answer.neighbours[0].gold_label == wrong
                assert seen(other.predict(text)) == seen(answer)
            with Runtime.open(bundle) as later:
                assert [seen(later.predict(text)) for text in TEXTS] == [seen(runtime.predict(text)) for text in TEXTS]

    def test_the_text_of_a_row_that_is_there_gets_the_new_label(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            kb = runtime.knowledge_base
            text, label = kb.text(3), "abc"[(int(np.asarray(kb.soft_labels)[3].argmax()) + 1) % 3]
            assert isinstance(text, str)
            done = runtime.kb.add(text, label)
            # The tiny bundle's keys are not the student's own: a row that its text does not find is replaced.
            assert done.change.remove == (kb.id(3),) and len(done.change.add) == 1
            assert runtime.predict(text).label == label and len(runtime.knowledge_base) == 120
            other = next(name for name in "abc" if name != label)
            done = runtime.kb.add(text, other)
            assert len(done.change.relabel) == 1 and not done.change.add and not done.change.remove
            assert runtime.predict(text).label == other
            label = other
            again = runtime.kb.add(text, label)
            assert again.entry is None and again.unchanged == 1

    def test_of_two_labels_the_last_one_counts(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            for label in "abcab":
                runtime.kb.add("jazz at noon", label)
                assert runtime.predict("jazz at noon").label == label

    def test_without_texts_too(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", texts=False)
        with Runtime.open(bundle) as runtime:
            for label in "abcab":
                runtime.kb.add("jazz at noon", label)
                assert runtime.predict("jazz at noon").label == label
            assert runtime.predict("jazz at noon").neighbours[0].text is None
        assert b"jazz" not in (bundle / "generations" / "0" / "journal.jsonl").read_bytes()

    def test_pairs(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", pairs=True)
        with Runtime.open(bundle) as runtime:
            runtime.kb.add(("jazz", "noon"), "c")
            runtime.kb.compact()
            assert runtime.predict(("jazz", "noon")).label == "c"
            assert runtime.predict(("jazz", "noon")).neighbours[0].text == ("jazz", "noon")

    def test_soft_labels_take_part_as_a_teachers_do(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            done = runtime.kb.add(Row("jazz at noon", soft={"a": 0.3, "b": 0.7}))
            near = runtime.predict("jazz at noon").neighbours[0]
            assert near.id == done.ids[0] and near.gold_label is None
            np.testing.assert_allclose(near.soft_label, [0.3, 0.7, 0], atol=1e-6)
            assert runtime.predict("jazz at noon").probability < 0.99  # not pinned

    def test_blanks_at_the_ends_are_no_part_of_a_label(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            done = runtime.kb.add(
                [Row("jazz", " d"), Row("noon", "d\n"), Row("light", None, {"a ": 0.5, " e": 0.5})], new_labels=True
            )
            assert done.change.labels == ("d", "e") and runtime.labels[3:] == ("d", "e")
            runtime.kb.relabel({"jazz": "a "})
            assert runtime.predict("jazz").label == "a"
            runtime.kb.remove(labels=["d "])
            with pytest.raises(UsageError, match="names a label twice"):
                runtime.kb.add("music", soft={"a": 0.5, "a ": 0.5})
            for blank in ("", "  "):
                with pytest.raises(UsageError):
                    runtime.kb.add("music", blank, new_labels=True)

    def test_unknown_labels_are_refused(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            with pytest.raises(LabelError, match="new_labels=True"):
                runtime.kb.add("jazz", "d")
            with pytest.raises(LabelError, match="row 2: a text has two labels, the other one in row 1"):
                runtime.kb.add([Row("jazz", "a"), Row("jazz", "b")])
            with pytest.raises(UsageError, match="neither a label"):
                runtime.kb.add("jazz")
            with pytest.raises(TextError):
                runtime.kb.add("", "a")
            assert list(runtime.kb.log()) == [] and not (bundle / "generations").exists()


class TestNewLabels:
    """The neighbours answer new labels until the classifier is fitted (`test_fit`)."""

    @pytest.fixture(autouse=True)
    def _no_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(BackgroundFit, "request", lambda *_: None)

    def test_are_answered_through_retrieval_alone(self, tmp_path: Path) -> None:
        with Runtime.open(build_tiny_bundle(tmp_path / "bundle")) as runtime:
            texts = ["jazz album artist", "artist jazz music", "album music jazz", "music artist album"]
            runtime.kb.add([Row(text, "music") for text in texts], new_labels=True)
            assert runtime.labels == ("a", "b", "c", "music")
            answer = runtime.predict("jazz music album artist")
            assert answer.label == "music" and answer.probabilities.shape == (4,)
            assert answer.student_probabilities[3] == 0 and answer.decided_by == "neighbours"
            for text in tiny_texts(30, seed=8):
                found = runtime.predict(text)
                assert found.probabilities.sum() == pytest.approx(1, abs=1e-5) and found.probabilities.min() >= 0
            never = runtime.with_retrieval("never").predict(texts[0])
            assert never.label in "abc" and never.probabilities[3] == 0

    def test_the_odds_are_those_of_the_tail_of_the_held_out_rows(self, bundle: Path) -> None:
        """Computed here in float64 from the soft labels of all rows, with the F distribution of scipy."""
        with Runtime.open(bundle) as runtime:
            done = runtime.kb.add([Row(text, "new") for text in tiny_texts(60, seed=91)], new_labels=True)
            kb, config = runtime.knowledge_base, runtime.manifest.blend
            assert done.change.new_label_odds is not None and kb.new_label_odds == done.change.new_label_odds
        heldout = HeldOutRows.open(bundle, 3, kb.ndim, 120)
        rows = np.array([*range(90), *range(120, 180)])  # not the held-out rows themselves
        points = []  # log odds from which on each right answer is lost
        for query, logits, gold in zip(heldout.queries, heldout.logits, heldout.gold, strict=True):
            near = kb.search(query, 180)
            exponents = np.exp(logits.astype(np.float64) / config.student_temperature)
            nearest = [place for place, row in enumerate(near.rows) if row in rows][: config.k]
            weights = np.exp(near.similarities[nearest].astype(np.float64) / config.tau)
            retrieved = weights @ kb.soft_labels.take(near.rows[nearest]).astype(np.float64)
            retrieved /= retrieved.sum()
            student, w = exponents / exponents.sum(), config.student_weight
            old = w * student + (1 - w) * retrieved[:3] / (1 - retrieved[3])
            if old.argmax() == gold:
                points.append(np.log(old.max() * (1 - retrieved[3]) / max(retrieved[3], 1e-30)))
        *tail, threshold = np.sort(points)[:11]
        assert len(points) < 250 and threshold < np.log(1000)  # the tail is the ten smallest
        below = np.mean(threshold - tail) * stats.f.isf(0.003 * (len(points) + 1) / 10, 2, 20)
        assert done.change.new_label_odds == pytest.approx(np.exp(threshold - below), rel=5e-3)

    def test_a_fold_keeps_them(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add([Row(text, "new") for text in tiny_texts(30, seed=91)], new_labels=True)
            asked = tiny_texts(40, seed=3)
            before = [runtime.predict(text) for text in asked]
            runtime.kb.compact()
            after = [runtime.predict(text) for text in asked]
            assert [answer.label for answer in before] == [answer.label for answer in after]
            for one, two in zip(before, after, strict=True):
                np.testing.assert_allclose(one.probabilities, two.probabilities, atol=2e-3)
            with Runtime.open(bundle) as later:
                assert [seen(later.predict(text)) for text in asked] == [seen(answer) for answer in after]


class TestUndo:
    def test_every_edit_can_be_taken_back(self, bundle: Path) -> None:
        asked = tiny_texts(20, seed=4)
        with Runtime.open(bundle) as runtime:
            first = [seen(runtime.predict(text)) for text in asked]
            ids = [runtime.knowledge_base.id(row) for row in range(5)]
            runtime.kb.add(tiny_texts(3, seed=70), "a")
            runtime.kb.remove(ids)
            runtime.kb.relabel({runtime.knowledge_base.id(9): "c"})
            assert [seen(runtime.predict(text)) for text in asked] != first
            for expected in (3, 2, 1):
                done = runtime.kb.undo()
                assert done.entry is not None and done.entry.undoes == expected
            assert [answer[0] for answer in map(seen, map(runtime.predict, asked))] == [answer[0] for answer in first]
            with pytest.raises(UsageError, match="no edit to take back"):
                runtime.kb.undo()
            assert runtime.kb.diff() == ()
            assert [entry.op for entry in runtime.kb.log()] == ["add", "remove", "relabel", "undo", "undo", "undo"]
            again = runtime.kb.undo(6)  # an undo is an edit too
            assert again.entry is not None and len(runtime.knowledge_base) == 123

    def test_rows_of_a_later_edit_are_refused(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            row = runtime.kb.add("jazz", "a").ids[0]
            runtime.kb.relabel({row: "b"})
            with pytest.raises(UsageError, match="there is no such edit"):
                runtime.kb.undo(7)
            runtime.kb.relabel({row: "c"})
            with pytest.raises(UsageError, match="a later edit changed a row"):
                runtime.kb.undo(2)
            runtime.kb.remove([row])
            with pytest.raises(UsageError, match="a later edit removed a row"):
                runtime.kb.undo(1)

    def test_after_a_fold_removed_rows_are_gone(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("a secret of mine", "a")
            runtime.kb.remove(texts=["a secret of mine"])
            runtime.kb.relabel({runtime.knowledge_base.id(9): "c"})
            runtime.kb.compact(why="privacy")
            with pytest.raises(UsageError, match="cannot be brought back"):
                runtime.kb.undo(2)
            runtime.kb.undo(3)
            assert len(runtime.knowledge_base) == 120
        for file in bundle.rglob("*"):
            assert file.is_dir() or b"secret" not in file.read_bytes(), file


class TestPreviewAndGuard:
    def test_a_preview_changes_nothing_and_reports_the_effect(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            kb = runtime.knowledge_base
            rows = {kb.id(row): "abc"[(kb.label(row) + 1) % 3] for row in range(60)}
            told = runtime.kb.relabel(rows, preview=True).preview
            assert told is not None and told.rows == 60 and len(told.flips) > 0 and told.worse > 0
            assert list(runtime.kb.log()) == []
            with pytest.raises(EditRefusedError, match="held-out rows") as caught:
                runtime.kb.relabel(rows, guard=told.share / 2)
            assert caught.value.exit_code == 2 and list(runtime.kb.log()) == []
            assert runtime.kb.relabel(rows, guard=told.share).entry is not None
            back = runtime.kb.undo(preview=True).preview
            assert back is not None and back.worse == told.better and back.better == told.worse
            assert {(flip.row, flip.after, flip.before) for flip in back.flips} == {
                (flip.row, flip.before, flip.after) for flip in told.flips
            }

    def test_held_out_rows_do_not_find_themselves(self, bundle: Path) -> None:
        """Rows 90 to 119 are the held-out rows: a change of these alone must not change a prediction."""
        with Runtime.open(bundle) as runtime:
            kb = runtime.knowledge_base
            own = {kb.id(row): "abc"[(kb.label(row) + 1) % 3] for row in range(90, 120)}
            found = runtime.kb.relabel(own, preview=True).preview
            assert found is not None and found.flips == ()

    def test_without_held_out_rows_there_is_none(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle")
        with Runtime.open(bundle) as runtime, pytest.raises(Exception, match="no held-out rows"):
            runtime.kb.add("jazz", "a", guard=0.1)
