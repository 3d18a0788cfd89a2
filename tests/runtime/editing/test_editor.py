"""Edits through an open runtime: visible at once in every process, undo, preview, guard, compaction."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.command_line import finish, spawn_python
from support.heldout_bundle import TEXTS, seen
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import BundleIntegrityError, EditRefusedError, LabelError, Row, Runtime, TextError, UsageError
from reaugkd.kb.edits import head
from reaugkd.kb.storage.ed25519 import new_key_pair, read_private_key
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.editing.background_fit import BackgroundFit
from reaugkd.runtime.editing.sign import sign_bundle


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


class TestFold:
    def test_happens_by_itself_when_many_rows_were_edited(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            few = runtime.kb.add(tiny_texts(20, seed=70), "a")
            assert few.compacted is None
            many = runtime.kb.add([f"jazz {number}" for number in range(300)], "b")
            assert many.compacted is not None and many.compacted.snapshot == 1
            assert [path.name for path in sorted((bundle / "generations").iterdir())] == ["1", "HEAD"]
            assert not (bundle / "kb").exists()
            kept = runtime.kb.add([f"music {number}" for number in range(300)], "b", auto_compact=False)
            assert kept.compacted is None

    def test_not_by_itself_while_it_would_erase_rows_that_the_last_ten_edits_removed(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add([f"jazz {number}" for number in range(200)], "b")
            assert runtime.kb.undo().compacted is None
        with Runtime.open(bundle) as runtime:  # it reads the last edits from the journal
            late = [runtime.kb.add(f"late {number}", "a").compacted for number in range(9)]
            assert late == [None] * 9
            assert runtime.kb.undo(2).compacted is None and len(runtime.knowledge_base) == 120 + 200 + 9
            assert runtime.kb.undo(1).compacted is None and len(runtime.knowledge_base) == 120 + 9
            more = [runtime.kb.add(f"more {number}", "a").compacted for number in range(10)]
            assert any(more)
            with pytest.raises(UsageError, match="erased"):
                runtime.kb.undo(13)

    def test_by_itself_in_the_end_where_every_edit_removes_rows(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            ids = runtime.kb.add([f"jazz {number}" for number in range(200)], "b").ids
            done = [runtime.kb.remove(ids[start : start + 5]) for start in range(0, 150, 5)]
            edited = next(number for number, one in enumerate(done, 1) if one.compacted is not None)
            # At 200 added and 5 removed in each edit, the edits before the last ten have more than 256 rows.
            assert 200 + 5 * (edited - 10) == 260

    def test_the_edits_made_again_give_the_same_bytes(self, export: Path, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            for turn in range(3):
                runtime.kb.add(tiny_texts(10, seed=70 + turn), "a")
                runtime.kb.remove([runtime.knowledge_base.id(turn)])
                runtime.kb.compact()
                runtime.kb.add(f"new {turn}", f"new {turn}", new_labels=True)
            runtime.kb.wait()
            found = runtime.kb.verify(export)
            made = [entry.op for entry in runtime.kb.log()]  # with a fit wherever it was done in time
            assert len([op for op in made if op != "fit"]) == 12 and found.edits == len(made)
            assert found.snapshot == 3 and found.replayed == len(made) - 1 - made[::-1].index("compact")
        one = next((bundle / "generations").glob("[0-9]")) / "history.jsonl"
        lines = one.read_bytes().splitlines(keepends=True)
        one.write_bytes(b"".join(lines[:-1]))
        with pytest.raises(BundleIntegrityError):
            Runtime.open(bundle)

    def test_replaying_on_another_export_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        other = build_tiny_bundle(tmp_path / "other", seed=5)
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "a")
            with pytest.raises(UsageError, match="another bundle"):
                runtime.kb.verify(other)

    def test_operations_on_exports_refuse_edits(self, bundle: Path) -> None:
        Bundle.open(bundle).refuse_edits("compact")
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz", "a")
        with pytest.raises(UsageError, match="1 edits"):
            Bundle.open(bundle).refuse_edits("compact")


class TestOthers:
    def test_a_stream_takes_edits_in(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, Runtime.open(bundle, threads=2) as editor:
            answers = runtime.predict_many("jazz at noon" for _ in range(3))
            first = next(answers)
            label = next(label for label in "abc" if label != first.label)
            editor.kb.add("jazz at noon", label)
            assert next(answers).label == label
            editor.kb.compact()
            assert next(answers).label == label
            assert [answer.label for answer in editor.predict_many(["jazz at noon"] * 20)] == [label] * 20

    def test_a_gate_gives_way_to_edits(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle")
        gate = {"threshold": 0.0, "epsilon": 0.1, "delta": 0.05, "rows": 10, "losses": 0, "retrieved": 0.0}
        reseal(bundle, gate=gate)
        with Runtime.open(bundle, retrieval="gated") as runtime:
            assert not runtime.predict("jazz").retrieved
            runtime.kb.add("jazz", "c")
            assert runtime.predict("jazz").label == "c" and runtime.predict("noon").retrieved

    def test_many_processes_edit_and_read_at_once(self, bundle: Path) -> None:
        """No edit is lost or repeated, and every prediction comes from a committed state."""
        script = (
            "import sys\n"
            "from reaugkd import Runtime, UsageError\n"
            "with Runtime.open(sys.argv[1]) as runtime:\n"
            "    for turn in range(8):\n"
            "        runtime.kb.add(f'jazz {sys.argv[2]} {turn}', 'abc'[turn % 3], who=sys.argv[2], wait=60)\n"
            "        if turn == 5:\n"
            "            try: runtime.kb.compact(who=sys.argv[2], wait=60)\n"
            "            except UsageError as error: assert 'nothing to compact' in str(error)\n"
            "        print(runtime.predict('jazz at noon').label)\n"
        )
        processes = [spawn_python(script, bundle, name) for name in ("one", "two", "three")]
        over = threading.Event()
        faults: list[object] = []

        def read() -> None:
            with Runtime.open(bundle) as runtime:
                size = 120
                while not over.is_set():
                    try:
                        answer, rows = runtime.predict("jazz at noon"), len(runtime.knowledge_base)
                        if not (answer.retrieved and answer.label in "abc" and rows >= size):
                            faults.append((answer, rows, size))
                        size = rows
                    except Exception as error:
                        faults.append(error)
                        raise

        reader = threading.Thread(target=read)
        reader.start()
        done = [finish(process) for process in processes]
        over.set()
        reader.join()
        assert [called.code for called in done] == [0, 0, 0], done
        assert faults == []
        with Runtime.open(bundle) as runtime:
            entries = runtime.kb.log()
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
            folds = [entry for entry in entries if entry.op == "compact"]
            assert len(entries) == 24 + len(folds) and 1 <= len(folds) <= 3
            texts = {runtime.knowledge_base.text(row) for row in range(120, 144)}
            assert texts == {f"jazz {name} {turn}" for name in ("one", "two", "three") for turn in range(8)}

    def test_a_timeout_of_the_lock_is_an_error(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, head.write_lock(bundle, 0):
            with pytest.raises(UsageError, match="another edit of the knowledge base is running"):
                runtime.kb.add("jazz", "a", wait=0.05)
            assert runtime.predict("jazz").retrieved


class TestSigned:
    def test_a_device_takes_only_its_owners_edits(self, bundle: Path, tmp_path: Path) -> None:
        new_key_pair(tmp_path / "owner.pem")
        new_key_pair(tmp_path / "other.pem")
        owner, public = read_private_key(tmp_path / "owner.pem"), tmp_path / "owner.pub.pem"
        sign_bundle(bundle, owner)
        with Runtime.open(bundle, require_signature=public) as device:
            with pytest.raises(UsageError, match="must be signed"):
                device.kb.add("jazz", "a")
            with pytest.raises(UsageError, match="must be signed"):
                device.kb.add("jazz", "a", key=read_private_key(tmp_path / "other.pem"))
            device.kb.add("jazz", "a", key=owner)
            device.kb.compact(key=owner)
            device.kb.add("noon", "b", key=owner)
            assert device.predict("noon").label == "b"
        with Runtime.open(bundle, require_signature=public) as device:
            assert device.predict("jazz").label == "a"
            with Runtime.open(bundle) as anybody:
                with pytest.raises(UsageError, match="unsigned"):
                    anybody.kb.add("night", "c")
                anybody.kb.add("night", "c", unsigned=True)
                assert anybody.predict("night").label == "c"
            with pytest.raises(BundleIntegrityError, match="not signed"):
                device.predict("night")
        with pytest.raises(BundleIntegrityError, match="not signed"):
            Runtime.open(bundle, require_signature=public)
