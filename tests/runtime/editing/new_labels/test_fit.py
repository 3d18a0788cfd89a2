"""The classifier of new labels: fitted in the background, committed, undone, compacted, and refused if damaged."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.heldout_bundle import TEXTS, seen
from support.tiny_bundle import tiny_texts

from reaugkd import BundleIntegrityError, Row, Runtime, StorageError, UsageError
from reaugkd.kb.edits.classifier_file import FittedClassifier
from reaugkd.kb.storage.ed25519 import new_key_pair, read_private_key
from reaugkd.runtime.editing.new_labels import background_fit, fit
from reaugkd.runtime.editing.new_labels.calibration import LOSS, largest_shift, turning_points
from reaugkd.runtime.editing.sign import sign_bundle

ROWS = [Row(text, "new") for text in tiny_texts(20, seed=91)]
ASKED = tiny_texts(30, seed=3)


def operations(runtime: Runtime) -> list[str]:
    return [entry.op for entry in runtime.kb.log()]


def files(bundle: Path) -> list[str]:
    return sorted(path.name for path in (bundle / "generations").rglob("classifier-*"))


class TestInUse:
    def test_from_its_commit_on_in_every_runtime_that_is_open(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime, Runtime.open(bundle) as other:
            assert runtime.kb.wait() is None and runtime.kb.new_label_classifier is None
            done = runtime.kb.add(ROWS, new_labels=True)
            assert done.entry is not None and done.entry.seq == 1
            found = runtime.kb.wait()
            assert found is not None and found.entry.op == "fit" and found.entry.why == "after edit 1"
            assert found.seconds > 0 and runtime.kb.wait() is None
            assert runtime.kb.new_label_classifier is not None and files(bundle) == ["classifier-1.npy"]
            answers = [runtime.predict(text) for text in ASKED]
            assert all(answer.classified and answer.edited[0] > 0 for answer in answers)
            assert replace(answers[0], label="new", edited=(0.9, 0.1)).decided_by == "classifier"
            assert {answer.decided_by for answer in answers} == {"student", "neighbours"}
            assert [seen(other.predict(text)) for text in ASKED] == [seen(answer) for answer in answers]
            with Runtime.open(bundle, search="usearch") as later:
                assert [later.predict(text).label for text in ASKED] == [answer.label for answer in answers]
                assert later.predict(ROWS[0].text).decided_by == "pinned row"

    def test_the_answer_is_the_formula(self, bundle: Path) -> None:
        """Computed here in float64: p_new = q_new, p_old = (1 - m') (w s + (1 - w) r_old / (1 - m))."""
        with Runtime.open(bundle) as runtime:
            runtime.kb.add(ROWS, new_labels=True)
            runtime.kb.wait()
            classifier, blend = runtime.kb.new_label_classifier, runtime.manifest.blend
            assert classifier is not None
            for text in ASKED:
                answer = runtime.predict(text)
                if answer.edited[1]:  # a pinned row
                    continue
                logits, query = runtime.student.run(runtime.tokenizer.encode(text))
                scores = classifier.weights.astype(np.float64) @ query + classifier.bias
                q = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                s = np.exp(logits.astype(np.float64) / blend.student_temperature)
                r = answer.neighbours.probabilities().astype(np.float64)
                old = blend.student_weight * s / s.sum() + (1 - blend.student_weight) * r[:3] / r[:3].sum()
                expected = [*(1 - q[3]) * old, q[3]]
                np.testing.assert_allclose(answer.probabilities, expected, atol=2e-3)

    def test_until_then_the_former_classifier_or_the_neighbours_answer(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second fit that does not end: the first classifier stays, as long as the new labels are the same."""
        with Runtime.open(bundle) as runtime:
            runtime.kb.add(ROWS[:10], new_labels=True)
            runtime.kb.wait()
            first, go, calls = runtime.kb.new_label_classifier, threading.Event(), []
            fit_classifier = fit.fit_classifier

            def slow(*given: object) -> FittedClassifier | None:
                calls.append(given)
                assert go.wait(60)
                return fit_classifier(*given)  # type: ignore[arg-type]

            monkeypatch.setattr(fit, "fit_classifier", slow)
            for row in ROWS[10:]:
                runtime.kb.add(row)
            assert runtime.kb.new_label_classifier is first and first is not None
            runtime.kb.add("late light", "another", new_labels=True)
            assert runtime.kb.new_label_classifier is None and runtime.predict(ASKED[0]).label in (
                *"abc",
                "new",
                "another",
            )
            go.set()
            assert runtime.kb.wait() is not None and len(calls) <= 2  # one fit for all edits that came meanwhile
            now = runtime.kb.new_label_classifier
            assert now is not None and now.fitted.all() and len(now.bias) == 5
            assert len(files(bundle)) == 1

    def test_which_rows_take_part(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            runtime.kb.add(ROWS, new_labels=True)
            runtime.kb.add([Row("jazz late", soft={"a": 0.3, "new": 0.7}), Row("five fan", soft={"a": 0.7, "b": 0.3})])
            runtime.kb.remove([runtime.knowledge_base.id(0)])
            store = runtime._current().parts.store
            kb = store.edited()
            labels = fit.row_labels(kb, store.related(), 3)
            assert store.related() == (90, 120)
            gold, likeliest = kb.gold(), np.asarray(kb.base.soft_labels).argmax(axis=1)
            assert labels[0] == -1 and (labels[90:120] == -1).all()  # removed, and held-out rows
            expected = np.where(gold[1:90] < 0, likeliest[1:90], gold[1:90])
            assert (labels[1:90] == expected).all() and labels[120:].tolist() == [3] * 20 + [3, 0]


class TestHistory:
    def test_undo_skips_it_and_fits_again(self, bundle: Path) -> None:
        with Runtime.open(bundle) as runtime:
            before = [seen(runtime.predict(text)) for text in TEXTS]
            runtime.kb.add(ROWS, new_labels=True)
            first = runtime.kb.wait()
            runtime.kb.undo()
            assert runtime.kb.wait() is None and runtime.kb.new_label_classifier is None  # no row has the label
            assert [seen(runtime.predict(text))[0] for text in TEXTS] == [one[0] for one in before]
            with pytest.raises(UsageError, match="a fit cannot be taken back"):
                runtime.kb.undo(2)
            runtime.kb.undo(3)
            again = runtime.kb.wait()
            assert (
                first is not None and again is not None and operations(runtime) == ["add", "fit", "undo", "undo", "fit"]
            )
            assert files(bundle) == ["classifier-4.npy"] and runtime.kb.verify().edits == 5

    def test_a_compaction_keeps_it(self, bundle: Path, tmp_path: Path) -> None:
        export = shutil.copytree(bundle, tmp_path / "export")
        with Runtime.open(bundle) as runtime:
            runtime.kb.add(ROWS, new_labels=True)
            runtime.kb.wait()
            before = [runtime.predict(text) for text in ASKED]
            runtime.kb.compact()
            assert runtime.kb.wait() is None and operations(runtime) == ["add", "fit", "compact"]
            assert files(bundle) == ["classifier-1.npy"]
            with pytest.raises(UsageError, match="nothing to compact"):
                runtime.kb.compact()
            with Runtime.open(bundle) as later:
                for one, text in zip(before, ASKED, strict=True):
                    np.testing.assert_allclose(later.predict(text).probabilities, one.probabilities, atol=2e-3)
                later.kb.add("jazz at noon", "new")
                assert later.kb.wait() is not None and later.kb.verify(export).replayed == 2

    def test_a_compaction_that_erases_rows_leaves_no_trace_of_them(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Runtime.open(bundle) as runtime:
            ids = runtime.kb.add(ROWS, new_labels=True).ids
            runtime.kb.wait()
            with monkeypatch.context() as context:
                context.setattr(background_fit.BackgroundFit, "request", lambda *_: None)
                runtime.kb.remove(ids[:5])
                assert runtime.kb.new_label_classifier is not None
                runtime.kb.compact()
            assert runtime.kb.new_label_classifier is None and files(bundle) == []
            assert runtime.kb.wait() is not None and runtime.kb.new_label_classifier is not None  # it was missing

    def test_a_fit_after_a_removal_has_no_trace_of_the_removed_rows_either(self, bundle: Path) -> None:
        """It does not begin with the fit before, so a compaction may keep it."""
        with Runtime.open(bundle) as runtime:
            ids = runtime.kb.add(ROWS, new_labels=True).ids
            runtime.kb.wait()
            runtime.kb.remove(ids[:5])
            runtime.kb.wait()
            store = runtime._current().parts.store
            alone = fit.fit_classifier(store, replace(store.view, fitted=None))
            made = store.view.fitted
            assert alone is not None and made is not None and made.seq == 3
            assert made.classifier.weights.tobytes() == alone.classifier.weights.tobytes()
            runtime.kb.compact()
            assert runtime.kb.wait() is None and files(bundle) == ["classifier-3.npy"]

    def test_a_fit_of_another_process_is_not_replaced_by_an_older_one(self, bundle: Path) -> None:
        with Runtime.open(bundle) as one, Runtime.open(bundle) as two:
            one.kb.add(ROWS[:10], new_labels=True)
            two.kb.add(ROWS[10:])
            one.kb.wait()
            two.kb.wait()
            assert len(files(bundle)) == 1
            first, second = one.kb.new_label_classifier, two.kb.new_label_classifier
            assert first is not None and second is not None and first.weights.tobytes() == second.weights.tobytes()

    def test_it_is_signed_with_the_key_of_the_edit(self, bundle: Path, tmp_path: Path) -> None:
        _, public = new_key_pair(tmp_path / "key.pem")
        sign_bundle(bundle, read_private_key(tmp_path / "key.pem"))
        with Runtime.open(bundle, require_signature=public) as runtime:
            runtime.kb.add(ROWS, new_labels=True, key=tmp_path / "key.pem", who="anna")
            done = runtime.kb.wait()
            assert done is not None and done.entry.who == "anna" and done.entry.signature is not None
        with Runtime.open(bundle, require_signature=public) as runtime:
            assert runtime.kb.new_label_classifier is not None

    def test_an_error_is_told_and_the_edit_stays(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise StorageError("the disk is full")

        monkeypatch.setattr(FittedClassifier, "save", full)
        monkeypatch.setattr(background_fit.warnings, "warn", lambda *_, **__: None)
        with Runtime.open(bundle) as runtime:
            runtime.kb.add(ROWS, new_labels=True)
            with pytest.raises(StorageError, match="full"):
                runtime.kb.wait()
            monkeypatch.undo()
            assert operations(runtime) == ["add"] and runtime.kb.wait() is not None

    @pytest.mark.parametrize("name", ["fit_classifier", "start"])
    def test_any_error_is_told_and_the_next_edit_fits(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """An error that nobody expected, or no thread to be had."""

        def fails(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with Runtime.open(bundle) as runtime, monkeypatch.context() as context:
            context.setattr(*((fit, name) if name == "fit_classifier" else (threading.Thread, name)), fails)
            context.setattr(background_fit.warnings, "warn", lambda *_, **__: None)
            assert runtime.kb.add(ROWS, new_labels=True).entry is not None
            with pytest.raises(RuntimeError, match="new thread"):
                runtime.kb.wait()
            context.undo()
            runtime.kb.add("jazz at noon", "new")
            assert runtime.kb.wait() is not None and operations(runtime) == ["add", "add", "fit"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "a link"])
def test_a_damaged_file_is_refused(bundle: Path, tmp_path: Path, damage: str) -> None:
    with Runtime.open(bundle) as runtime:
        runtime.kb.add(ROWS, new_labels=True)
        runtime.kb.wait()
    (path,) = bundle.rglob("classifier-*.npy")
    data = path.read_bytes()
    path.unlink()
    if damage == "a link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage != "missing":
        path.write_bytes(data[:-4] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Exception, match=r"missing|damaged|behind links") as error:
        Runtime.open(bundle)
    assert error.type is BundleIntegrityError or damage == "a link"


class TestShift:
    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 1500), st.integers(5, 10), st.integers(0, 2**32 - 1))
    def test_few_held_out_texts_are_lost_where_few_are_near(self, far: int, near: int, seed: int) -> None:
        points = np.append(np.random.default_rng(seed).normal(2, 1, near), np.full(far, 50.0))
        shift, most = largest_shift(points), int(LOSS * (len(points) + 1))
        assert (points < shift).sum() <= max(most - 1, 0)
        assert (points < shift + 2e-3).sum() >= most

    def test_the_tail_is_the_predictive_distribution_of_scipy(self) -> None:
        points = np.sort(np.random.default_rng(2).logistic(3, 1, 800))
        _, scale = stats.expon.fit(points[32] - points[:32], floc=0)
        below = scale * stats.f.isf(LOSS * 801 / 32, 2, 64)  # of a new text over the mean of 32
        assert largest_shift(points) == pytest.approx(points[32] - below, abs=2e-3)

    @pytest.mark.parametrize("draw", ["gumbel", "logistic", "normal"])
    def test_the_expected_loss_of_new_texts_is_near_the_limit_or_below(self, draw: str) -> None:
        rng = np.random.default_rng(0)
        for rows in (300, 700, 1000):
            of = partial(getattr(rng, draw), 3, 1)
            lost = [(of(2000) < largest_shift(of(rows))).mean() for _ in range(300)]
            assert np.mean(lost) < LOSS * 1.2

    def test_turning_points_are_where_a_new_label_wins(self) -> None:
        rng = np.random.default_rng(1)
        old, voted = rng.dirichlet(np.ones(4), 50), rng.dirichlet(np.ones(7), 50)
        points = turning_points(np.log(old.max(axis=1)), voted, 4)
        for a, v, point in zip(old.max(axis=1), voted, points, strict=True):
            for shift, wins in ((point - 1e-6, False), (point + 1e-6, True)):
                mass = v[4:].sum()
                odds = np.exp(shift) * mass / (1 - mass)
                new = odds / (1 + odds)
                assert (new * v[4:].max() / mass > (1 - new) * a) == wins
