"""Abstention in the runtime: goals become thresholds, in every retrieval mode; predictions stay unchanged."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.heldout_bundle import TEXTS, add_abstention, build_heldout_bundle
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import Abstain, BundleError, Row, Runtime, UsageError
from reaugkd.runtime.bundle.manifest import Manifest
from reaugkd.runtime.decision.abstention_thresholds import Abstention, Certified, Thresholds, write_thresholds
from reaugkd.runtime.decision.gating import Gate
from reaugkd.runtime.decision.rejection_score import WEIGHTS, uncertainty

NEW = tiny_texts(80, seed=500)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with abstention and a gate that leaves half of the texts to the student."""
    path = build_heldout_bundle(tmp_path_factory.mktemp("abstain") / "bundle")
    with Runtime.open(path, retrieval="never") as runtime:
        sure = sorted(runtime.predict(text).probability for text in TEXTS)
    reseal(path, gate=dataclasses.asdict(Gate(sure[30], 0.01, 0.05, 400, 0, 0.5)))
    return add_abstention(path)


def abstention_of(path: Path) -> Abstention:
    found = Manifest.from_json(json.loads((path / "manifest.json").read_text()), path).abstention
    assert found is not None
    return found


def section(abstention: Abstention) -> Any:
    """Return the abstention section of the manifest."""
    values = json.loads(json.dumps(dataclasses.asdict(abstention)))
    write_thresholds(values)
    return values


class TestThresholds:
    THRESHOLDS = Thresholds((0.5, 0.9), (1.0, 3.0), (Certified(0.01, 0.5, 100, 0), Certified(0.05, 2.0, 300, 9)))

    def test_a_coverage_is_interpolated(self) -> None:
        found = [self.THRESHOLDS.threshold(Abstain(coverage=share)) for share in (0.2, 0.5, 0.7, 0.9, 1.0)]
        assert found == [1.0, 1.0, pytest.approx(2.0), 3.0, math.inf]

    def test_an_error_takes_the_largest_rate_that_is_certified(self) -> None:
        found = [self.THRESHOLDS.threshold(Abstain(error=rate)) for rate in (0.01, 0.049, 0.05, 0.3)]
        assert found == [0.5, 0.5, 2.0, 2.0]

    def test_a_threshold_is_itself(self) -> None:
        assert self.THRESHOLDS.threshold(Abstain(threshold=7.0)) == 7.0

    @pytest.mark.parametrize(
        ("goal", "message"),
        [("coverage=95%", "at most 90.0%"), ("error=0.5%", "at least 1.0%")],
    )
    def test_goals_without_enough_rows_are_refused(self, goal: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            self.THRESHOLDS.threshold(Abstain.parse(goal))

    def test_where_nothing_was_certified(self) -> None:
        nothing = Thresholds((), (), ())
        assert nothing.threshold(Abstain(coverage=1.0)) == math.inf
        for goal in ("coverage=50%", "error=30%"):
            with pytest.raises(UsageError):
                nothing.threshold(Abstain.parse(goal))

    @pytest.mark.parametrize(
        "wrong",
        [((0.9, 0.5), (1.0, 3.0)), ((0.5, 0.9), (3.0, 1.0)), ((0.5,), ()), ((1.0,), (1.0,)), ((0.5,), (math.nan,))],
    )
    def test_numbers_that_are_no_thresholds(self, wrong: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        with pytest.raises(UsageError):
            Thresholds(*wrong, ())

    @pytest.mark.parametrize("wrong", [(0.0, 1.0, 1, 0), (0.1, -1.0, 1, 0), (0.1, 1.0, 1, 2), (0.1, math.nan, 1, 0)])
    def test_numbers_that_are_no_certificate(self, wrong: tuple[float, float, int, int]) -> None:
        with pytest.raises(UsageError):
            Certified(*wrong)


class TestAnswers:
    def test_the_doubtful_are_abstained_from_and_the_answer_stays(self, path: Path) -> None:
        thresholds = abstention_of(path).blend
        with Runtime.open(path) as runtime:
            plain = [runtime.predict(text) for text in NEW]
            found = [runtime.predict(text, abstain="coverage=50%") for text in NEW]
            limit = thresholds.threshold(Abstain(coverage=0.5))
        assert 10 <= sum(answer.abstained for answer in found) <= 70
        for before, answer in zip(plain, found, strict=True):
            assert answer.rejection_score is not None and answer.abstained is (answer.rejection_score > limit)
            assert (answer.abstention is None) is not answer.abstained
            assert answer.abstention in (None, "distance", "uncertainty", "disagreement")
            assert answer.probabilities.tobytes() == before.probabilities.tobytes()
            assert (answer.label, answer.neighbours[0].row) == (before.label, before.neighbours[0].row)
            assert before.rejection_score is None and not before.abstained and before != answer
            assert dataclasses.replace(answer, rejection_score=None, abstention=None) == before

    def test_a_goal_s_coverage_is_that_of_the_held_out_rows(self, path: Path) -> None:
        """Measured on the rows of the fit, with a search in all rows of the knowledge base."""
        with Runtime.open(path) as runtime:
            for share in (0.5, 0.9):
                kept = [not runtime.predict(text, Abstain(coverage=share)).abstained for text in TEXTS[::2]]
                assert sum(kept) == pytest.approx(math.ceil(31 * share), abs=1)
            assert not any(runtime.predict(text, abstain="coverage=100%").abstained for text in NEW)
            assert all(runtime.predict(text, abstain="threshold=0").abstained for text in NEW)

    def test_streams_threads_and_pickles_answer_alike(self, path: Path) -> None:
        goal = Abstain(coverage=0.8)
        with Runtime.open(path, threads=2) as runtime:
            alone = [runtime.predict(text, goal) for text in NEW]
            assert list(runtime.predict_many(NEW, abstain=goal)) == alone
            assert list(runtime.predict_many(NEW, "return", "coverage=80%")) == alone
            again: Runtime = pickle.loads(pickle.dumps(runtime))
            assert list(again.predict_many(NEW, abstain=goal)) == alone
            carried = pickle.loads(pickle.dumps(alone))
            assert carried == alone and [one.abstention for one in carried] == [one.abstention for one in alone]
            assert [one.prediction_set for one in carried] == [one.prediction_set for one in alone]
            assert carried[0].similarities.tobytes() == alone[0].similarities.tobytes()

    def test_the_record_has_abstention_only_on_request(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            assert "abstained" not in runtime.predict(NEW[0]).as_record()
            answer = runtime.predict(NEW[0], "threshold=0")
        record = answer.as_record(explain=True)
        assert (record["abstained"], record["rejection_score"], record["abstention"]) == (
            True,
            answer.rejection_score,
            answer.abstention,
        )
        assert record["prediction_set"] == list(answer.prediction_set or ())
        json.dumps(record)


class TestModes:
    def test_the_gate_is_left_out(self, path: Path) -> None:
        """The distance to the nearest rows is the strongest signal, also if the student is certain."""
        with Runtime.open(path, retrieval="gated") as gated, gated.with_retrieval("always") as always:
            assert {gated.predict(text).reason for text in NEW} == {None, "sure"}
            assert [gated.predict(text, "coverage=80%") for text in NEW] == [
                always.predict(text, "coverage=80%") for text in NEW
            ]
            assert {gated.predict(text).reason for text in NEW} == {None, "sure"}  # and comes back

    def test_without_retrieval_the_student_s_uncertainty_alone_counts(self, path: Path) -> None:
        limit = abstention_of(path).student.threshold(Abstain(coverage=0.5))
        with Runtime.open(path, retrieval="never") as never:
            found = [never.predict(text, "coverage=50%") for text in NEW]
        assert {answer.abstention for answer in found} == {None, "uncertainty"}
        assert all(
            answer.abstained is (answer.rejection_score is not None and answer.rejection_score > limit)
            for answer in found
        )

    def test_where_the_time_is_used_up_too(self, path: Path) -> None:
        with Runtime.open(path, budget_ms=1e-9) as late, Runtime.open(path, retrieval="never") as never:
            for text in NEW[:10]:
                found, alone = late.predict(text, "coverage=80%"), never.predict(text, "coverage=80%")
                assert found.reason == "budget" and (found.rejection_score, found.abstention) == (
                    alone.rejection_score,
                    alone.abstention,
                )

    def test_a_late_answer_is_given_only_where_the_student_alone_keeps_to_the_goal(self, tmp_path: Path) -> None:
        path = add_abstention(build_heldout_bundle(tmp_path / "bundle"))
        found = abstention_of(path)
        certain = Thresholds(found.blend.coverages, found.blend.rejection_scores, (Certified(0.01, 1e6, 30, 0),))
        alone = Thresholds(found.student.coverages, found.student.rejection_scores, ())
        reseal(path, abstention=section(dataclasses.replace(found, blend=certain, student=alone)))
        with Runtime.open(path, budget_ms=1e-9) as late, Runtime.open(path) as always:
            assert all(late.predict(text, "error=1%").abstained for text in NEW[:10])
            assert not any(always.predict(text, "error=1%").abstained for text in NEW[:10])
        with Runtime.open(path, retrieval="never") as never, pytest.raises(UsageError, match="could not certify"):
            never.predict(NEW[0], "error=1%")

    def test_an_empty_knowledge_base_leaves_the_student(self, tmp_path: Path, path: Path) -> None:
        empty = build_tiny_bundle(tmp_path / "empty", rows=0)
        reseal(empty, abstention=section(abstention_of(path)))
        with Runtime.open(empty) as runtime:
            found = runtime.predict(NEW[0], "threshold=0")
            assert (found.reason, found.abstention) == ("empty", "uncertainty")
        known = abstention_of(path)
        certain = Thresholds((), (), (Certified(0.01, 1e6, 30, 0),))
        reseal(empty, abstention=section(dataclasses.replace(known, blend=certain, student=Thresholds((), (), ()))))
        with Runtime.open(empty) as runtime, pytest.raises(UsageError, match="could not certify"):
            runtime.predict(NEW[0], "error=1%")  # what neighbours would keep to, of which there are none


class TestSets:
    def test_they_hold_the_likely_labels_best_first(self, path: Path) -> None:
        sets = abstention_of(path).sets
        assert sets.gated is not None and len({sets.blend.of(0.9), sets.student.of(0.9), sets.gated.of(0.9)}) > 1
        for mode, with_neighbours, without in (
            ("always", sets.blend, sets.student),
            ("gated", sets.gated, sets.gated),
            ("never", sets.student, sets.student),
        ):
            with Runtime.open(path, retrieval=mode) as runtime:
                for text in NEW:
                    answer = runtime.predict(text)
                    least = (with_neighbours if answer.retrieved else without).of(0.9)
                    likely = sorted(zip(answer.probabilities.tolist(), answer.labels, strict=True), reverse=True)
                    assert answer.prediction_set == tuple(label for share, label in likely if share >= least)
                    assert len(answer.prediction_set_of(0.8)) <= len(answer.prediction_set_of(0.95))

    def test_of_an_abstaining_gate_they_are_the_blend_s(self, path: Path) -> None:
        with Runtime.open(path, retrieval="gated") as gated, Runtime.open(path) as always:
            for text in NEW:
                found, expected = gated.predict(text, "threshold=9"), always.predict(text)
                assert found.prediction_set_of(0.95) == expected.prediction_set_of(0.95)

    def test_another_coverage_than_those_that_were_fitted(self, path: Path) -> None:
        with Runtime.open(path) as runtime, pytest.raises(UsageError, match=r"expected 0\.8, 0\.9, 0\.95"):
            runtime.predict(NEW[0]).prediction_set_of(0.85)


class TestEdits:
    @pytest.fixture
    def copy(self, path: Path, tmp_path: Path) -> Path:
        shutil.copytree(path, tmp_path / "copy")
        return tmp_path / "copy"

    def test_a_corrected_text_is_answered(self, copy: Path) -> None:
        """A pinned row alone decides; the student's uncertainty is ignored."""
        strange = ["oven " * 12, "clock clock clock", "zzz zzz"]
        with Runtime.open(copy) as runtime:
            before = [runtime.predict(text, abstain="threshold=0") for text in strange]
            assert all(answer.abstained and answer.edited == (0.0, 0.0) for answer in before)
            for text, answer in zip(strange, before, strict=True):
                label = next(label for label in "abc" if label != answer.label)
                runtime.kb.add(text, label)
                after = runtime.predict(text, abstain="threshold=0")
                assert (after.label, after.abstained, after.rejection_score) == (label, False, 0.0) and after.edited[
                    1
                ] == 1.0
                assert pickle.loads(pickle.dumps(after)).edited == after.edited

    def test_new_labels_ignore_the_student(self, copy: Path) -> None:
        with Runtime.open(copy) as runtime:
            tails = abstention_of(copy).tails
            texts = tiny_texts(30, seed=77)
            runtime.kb.add([Row(text, "new") for text in texts], new_labels=True)
            found = [runtime.predict(text, abstain="coverage=90%") for text in tiny_texts(60, seed=78)]
            assert max(answer.edited[0] for answer in found) > 0.05
            for answer in found:
                (new, pinned), student = answer.edited, answer.student_probabilities
                unlike = 1 - float(student @ answer.retrieval_probabilities)  # type: ignore[operator]
                parts = {
                    "distance": tails.distance.neg_log_p(1 - float(answer.similarities[:4].mean())),
                    "uncertainty": (1 - new) * tails.uncertainty.neg_log_p(float(uncertainty(student))),
                    "disagreement": (1 - new) * tails.disagreement.neg_log_p(unlike),
                }
                expected = (1 - pinned) * sum(WEIGHTS[name] * part for name, part in parts.items())  # type: ignore[index]
                assert answer.rejection_score == pytest.approx(expected, abs=1e-4)
                assert answer.prediction_set is None  # fitted for the labels that the student was taught

    def test_a_gate_is_none_once_edits_ended_it(self, copy: Path) -> None:
        with Runtime.open(copy, retrieval="gated") as runtime:
            assert runtime.gate == runtime.manifest.gate is not None
            runtime.kb.add("noon", "a")
            assert runtime.gate is None and runtime.predict("night").retrieved


class TestBundlesWithout:
    def test_old_bundles_predict_as_before_and_refuse_abstention(self, edge_bundle: Path) -> None:
        with Runtime.open(edge_bundle) as runtime:
            answer = runtime.predict(NEW[0])
            assert answer.prediction_set is None and "prediction_set" not in answer.as_record(explain=True)
            with pytest.raises(UsageError, match=r"has no abstention thresholds.*Export it again"):
                runtime.predict(NEW[0], abstain="coverage=95%")
            with pytest.raises(UsageError, match="has no abstention thresholds"):
                runtime.predict_many(NEW, abstain=Abstain(threshold=1.0))  # at once, not at the first answer
            with pytest.raises(UsageError, match="no prediction sets"):
                answer.prediction_set_of(0.9)

    def test_other_things_than_goals(self, path: Path) -> None:
        with Runtime.open(path) as runtime, pytest.raises(UsageError, match="not an abstention goal"):
            runtime.predict(NEW[0], abstain=0.95)  # type: ignore[arg-type]

    def test_many_goals_are_not_kept_for_ever(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            for number in range(100):
                runtime.predict(NEW[0], Abstain(threshold=float(number)))
            assert len(runtime._policies._known) <= 32


class TestManifest:
    def test_json_and_back(self, path: Path) -> None:
        obj = json.loads((path / "manifest.json").read_text())
        manifest = Manifest.from_json(obj, path)
        assert manifest.abstention is not None and manifest.format_version == 1
        assert Manifest.from_json(json.loads(json.dumps(manifest.to_json())), path) == manifest
        assert len(json.dumps(obj["abstention"])) < 8_000

    @pytest.mark.parametrize(
        "change",
        [
            lambda section: section.update(rows="?"),
            lambda section: section.update(delta=1.5),
            lambda section: section.pop("tails"),
            lambda section: section["tails"].pop("distance"),
            lambda section: section["tails"]["distance"].update(p=[]),
            lambda section: section["blend"].update(doubts=[1]),
            lambda section: section["blend"].update(errors=[{"error": 0.1}]),
            lambda section: section["sets"]["student"].update(least=[2.0]),
            lambda section: section["sets"].update(gated=1),
            lambda section: section["reference"]["agreement"].update(counts=[]),
        ],
    )
    def test_a_mistyped_section_is_named(self, path: Path, change: Any) -> None:
        obj = json.loads((path / "manifest.json").read_text())
        change(obj["abstention"])
        with pytest.raises(BundleError, match=r"the manifest's abstention"):
            Manifest.from_json(obj, path)

    @pytest.mark.parametrize("value", ["?", 1, [1], {"x": 1}])
    def test_the_section_may_be_missing_but_not_mistyped(self, path: Path, value: object) -> None:
        obj = json.loads((path / "manifest.json").read_text())
        with pytest.raises(BundleError, match="abstention"):
            Manifest.from_json({**obj, "abstention": value}, path)
        assert Manifest.from_json({**obj, "abstention": None}, path).abstention is None
        del obj["abstention"]
        assert Manifest.from_json(obj, path).abstention is None
