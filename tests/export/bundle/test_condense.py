"""Condensing a bundle: limits hold, the report describes the written bundle, and a failure leaves no partial output."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.command_line import names
from support.heldout_bundle import TEXTS, add_abstention, add_heldout, build_heldout_bundle
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import Runtime
from reaugkd.commands.bundle.condense import format_condensed
from reaugkd.errors import BundleError, OutputExistsError, UsageError
from reaugkd.export.bundle.condense import CONNECTIVITY, DTYPE, Condensed, Limit, condense, frontier
from reaugkd.export.tuning.gating import Certificate, certify
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows

ROWS = 400
GATE = {"threshold": 0.9, "epsilon": 0.4, "delta": 0.3, "rows": 9, "losses": 0, "retrieved": 0.5}


@contextmanager
def silent(_label: str, _unit: str) -> Iterator[Callable[[int, int | None], object]]:
    yield lambda _done, _total: None


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 400 rows that are not related to the held-out rows; read-only."""
    return build_heldout_bundle(tmp_path_factory.mktemp("full") / "bundle")


@pytest.fixture(scope="module")
def halved(full: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Condensed]:
    """The bundle condensed to 200 rows; read-only."""
    out = tmp_path_factory.mktemp("halved") / "bundle"
    return out, condense(full, out, Limit(rows=200), silent)


def kb_bytes(bundle: Path) -> int:
    return sum(file.stat().st_size for file in (bundle / "kb").iterdir())


def heldout_of(bundle: Path) -> HeldOutRows:
    return HeldOutRows.open(bundle, 3, 16, ROWS)


def nll_and_accuracy(bundle: Path, gold: np.ndarray, retrieval: str = "always") -> tuple[float, float]:
    """The runtime's answers to the held-out texts."""
    with Runtime.open(bundle, retrieval=retrieval) as runtime:  # type: ignore[arg-type]
        said = np.array([runtime.predict(text).probabilities for text in TEXTS])
    return float(-np.log(said[np.arange(len(gold)), gold]).mean()), float((said.argmax(axis=1) == gold).mean())


class TestTheBundle:
    def test_answers_and_reports_its_quality(self, full: Path, halved: tuple[Path, Condensed]) -> None:
        out, done = halved
        gold = heldout_of(full).gold
        student, alone = nll_and_accuracy(full, gold, "never")
        whole, right = nll_and_accuracy(full, gold)
        found, still_right = nll_and_accuracy(out, gold)
        assert right > alone + 0.1 and student > whole + 0.05  # or there is nothing to keep
        size = done.size
        assert size.nll == pytest.approx(found, abs=2e-3)
        assert size.accuracy == pytest.approx(still_right)
        assert size.kept_nll == pytest.approx((student - found) / (student - whole), abs=0.01)
        assert size.kept_accuracy == pytest.approx((still_right - alone) / (right - alone))
        assert 0.2 < size.kept_nll < 0.8  # some, but not all

    def test_is_a_bundle_of_that_many_rows(self, full: Path, halved: tuple[Path, Condensed]) -> None:
        out, done = halved
        manifest = Bundle.open(out).manifest
        assert manifest == done.manifest
        assert (manifest.kb_rows, manifest.kb.dtype, manifest.kb.connectivity) == (200, DTYPE, CONNECTIVITY)
        assert manifest.kb.expansion_search == manifest.quality["search"]["expansion_search"] >= 64
        assert manifest.format_version == 1  # three classes: float16
        said = manifest.quality["condensation"]
        assert said["bytes"] == done.size.bytes == kb_bytes(out)
        assert said["bytes_before"] == done.bytes_before == kb_bytes(full)
        assert (said["rows_before"], said["rows"], said["heldout_rows"]) == (ROWS, 200, len(TEXTS))
        for name in ("student/model.onnx", "student/tokenizer.json", "student/config.json"):
            assert (out / name).read_bytes() == (full / name).read_bytes()

    def test_is_made_of_rows_of_the_old_one(self, full: Path, halved: tuple[Path, Condensed]) -> None:
        with Runtime.open(full) as before, Runtime.open(halved[0]) as after:
            old, new = before.knowledge_base, after.knowledge_base
            assert after.manifest.blend == before.manifest.blend
        whole = {(old.id(row), old.label(row), old.text(row)) for row in range(ROWS)}
        assert {(new.id(row), new.label(row), new.text(row)) for row in range(200)} <= whole
        assert len({new.id(row) for row in range(200)}) == 200

    def test_leaves_the_held_out_rows_behind(self, halved: tuple[Path, Condensed], tmp_path: Path) -> None:
        assert not (halved[0] / HELDOUT_FILE).exists() and HELDOUT_FILE not in halved[1].manifest.files
        with pytest.raises(BundleError, match="has no held-out rows"):
            condense(halved[0], tmp_path / "again", Limit(rows=100), silent)
        assert names(tmp_path) == []

    def test_is_the_same_every_time(self, full: Path, halved: tuple[Path, Condensed], tmp_path: Path) -> None:
        again = condense(full, tmp_path / "again", Limit(rows=200), silent)
        assert again.manifest == halved[1].manifest

    def test_without_texts(self, full: Path, tmp_path: Path) -> None:
        done = condense(full, tmp_path / "out", Limit(rows=ROWS), silent, keep_texts=False)
        assert done.size.bytes == kb_bytes(tmp_path / "out")
        assert "texts.jsonl" not in names(tmp_path / "out" / "kb")

    def test_its_gate_is_certified_for_its_own_answers(self, full: Path, tmp_path: Path) -> None:
        shutil.copytree(full, tmp_path / "gated")
        reseal(tmp_path / "gated", gate=GATE)
        done = condense(tmp_path / "gated", tmp_path / "out", Limit(rows=50), silent)
        heldout = heldout_of(full)
        with Runtime.open(tmp_path / "out") as runtime:
            said = [runtime.predict(text) for text in TEXTS]
        student, blend = (
            np.array([getattr(one, name) for one in said]) for name in ("student_probabilities", "probabilities")
        )
        expected = certify(student, blend, heldout.gold, heldout.groups, Certificate(0.4, 0.3))
        assert expected is not None and done.manifest.gate is not None
        assert done.manifest.gate.threshold == pytest.approx(expected.threshold, abs=2e-3)
        assert (done.manifest.gate.rows, done.manifest.gate.losses) == (expected.rows, expected.losses)
        assert done.manifest.gate.epsilon == 0.4
        assert f"retrieves for {expected.retrieved:.1%}" in format_condensed(tmp_path / "out", done)
        never_gated = condense(full, tmp_path / "none", Limit(rows=50), silent)
        assert never_gated.manifest.gate is None and "--gated" not in format_condensed(tmp_path / "none", never_gated)

    def test_abstention_is_fitted_on_its_own_answers(self, full: Path, tmp_path: Path) -> None:
        shutil.copytree(full, tmp_path / "knowing")
        before = Bundle.open(add_abstention(tmp_path / "knowing")).manifest.abstention
        after = condense(tmp_path / "knowing", tmp_path / "out", Limit(rows=50), silent).manifest.abstention
        assert before is not None and after is not None and after.rows == before.rows
        # With fewer rows neighbours are farther; the student's answers are unchanged.
        assert sum(after.tails.distance.values) > 1.2 * sum(before.tails.distance.values)
        assert after.student == before.student and after.sets.student == before.sets.student
        never = condense(full, tmp_path / "never", Limit(rows=50), silent).manifest
        assert never.abstention is None

    def test_a_gate_that_can_no_longer_be_certified_is_reported(self, full: Path, tmp_path: Path) -> None:
        shutil.copytree(full, tmp_path / "gated")
        reseal(tmp_path / "gated", gate={**GATE, "epsilon": 0.005})  # 60 rows are too few for a proof
        done = condense(tmp_path / "gated", tmp_path / "out", Limit(rows=50), silent)
        assert done.manifest.gate is None
        reported = format_condensed(tmp_path / "out", done)
        assert "none: too few held-out rows to certify a loss of 0.50%" in reported

    def test_the_manifest_describes_the_new_search(self, full: Path, tmp_path: Path) -> None:
        shutil.copytree(full, tmp_path / "reported")
        reseal(tmp_path / "reported", quality={"search": {"expansion_search": 999, "recall": 0.1, "compared": 1.0}})
        made = condense(tmp_path / "reported", tmp_path / "out", Limit(rows=50), silent).manifest
        assert made.quality["search"]["expansion_search"] == made.kb.expansion_search != 999
        assert made.quality["search"]["recall"] > 0.9

    def test_of_many_classes_keeps_the_likeliest(self, tmp_path: Path) -> None:
        labels = [f"label {number}" for number in range(30)]
        full = build_heldout_bundle(tmp_path / "full", labels=labels)
        done = condense(full, tmp_path / "out", Limit(rows=100), silent)
        assert done.manifest.format_version == 2
        with Runtime.open(tmp_path / "out") as runtime:
            assert runtime.predict("noon").probabilities.sum() == pytest.approx(1, abs=1e-5)


class TestRowsRelatedToHeldOutRows:
    def test_are_not_measured_with(self, full: Path, tmp_path: Path) -> None:
        """Adding the held-out texts with their labels to the knowledge base does not change the measured quality."""
        shutil.copytree(full, tmp_path / "knowing")
        heldout, kb = heldout_of(full), opened_kb(full)
        keys = np.concatenate([kb.keys(), heldout.queries])
        labels = np.concatenate([np.asarray(kb.soft_labels), np.eye(3)[heldout.gold]])
        knowing = KnowledgeBase.build(keys, labels, config=kb.config)
        shutil.rmtree(tmp_path / "knowing" / "kb")
        knowing.save(tmp_path / "knowing" / "kb")
        reseal(tmp_path / "knowing", kb_rows=len(knowing))
        assert nll_and_accuracy(tmp_path / "knowing", heldout.gold)[1] > nll_and_accuracy(full, heldout.gold)[1] + 0.05
        expected, found = frontier(full, silent, False), frontier(tmp_path / "knowing", silent, False)
        assert found.sizes[0].rows == ROWS + len(TEXTS)
        np.testing.assert_allclose(found.reference.full.nll, expected.reference.full.nll, atol=1e-4)
        assert found.sizes[0].nll == pytest.approx(expected.sizes[0].nll)
        done = condense(tmp_path / "knowing", tmp_path / "out", Limit(rows=230), silent)
        assert done.size.rows == done.manifest.kb_rows == 230
        # The same share: 200 of 400.
        assert done.size.nll == pytest.approx(condense(full, tmp_path / "half", Limit(rows=200), silent).size.nll)


def opened_kb(bundle: Path) -> KnowledgeBase:
    with Runtime.open(bundle) as runtime:
        return runtime.knowledge_base


class TestLimits:
    @pytest.mark.parametrize("keep_texts", [True, False])
    @pytest.mark.parametrize("share", [1.2, 1.0, 0.6, 0.2])
    def test_the_limit_of_bytes_is_used_and_not_exceeded(
        self, full: Path, share: float, keep_texts: bool, tmp_path: Path
    ) -> None:
        whole = condense(full, tmp_path / "whole", Limit(rows=ROWS), silent, keep_texts).size.bytes
        done = condense(full, tmp_path / "out", Limit(bytes=int(share * whole)), silent, keep_texts)
        assert kb_bytes(tmp_path / "out") <= share * whole
        assert kb_bytes(tmp_path / "out") > 0.9 * min(share, 1) * whole
        assert (done.size.rows == ROWS) == (share >= 1)

    def test_a_frontier_predicts_bytes_and_answers(self, full: Path, tmp_path: Path) -> None:
        found = frontier(full, silent)
        rows = [size.rows for size in found.sizes]
        assert rows[:7] == [400, 283, 200, 141, 100, 71, 50] and rows[-1] == 4
        assert found.sizes[0].kept_nll == pytest.approx(1, abs=1e-3) and found.bytes == kb_bytes(full)
        for size in found.sizes[0], found.sizes[2]:
            done = condense(full, tmp_path / f"{size.rows}", Limit(rows=size.rows), silent)
            assert done.size.bytes == pytest.approx(size.bytes, rel=0.03)
            # The frontier's keys are not rounded to i8, and none is missed.
            assert done.size.nll == pytest.approx(size.nll, abs=0.02)
        assert found.to_json()["sizes"][2] == found.sizes[2].as_dict()

    def test_a_loss_limit_chooses_the_smallest_sufficient_size(self, full: Path, tmp_path: Path) -> None:
        found = frontier(full, silent)
        gain, right = found.reference.gain, found.reference.more_right
        taken = []
        for loss in (0.0, 0.1, 0.3, 1.0):
            done = condense(full, tmp_path / f"{loss}", Limit(loss=loss), silent)
            taken.append(done.size.rows)
            size = next(size for size in found.sizes if size.rows == done.size.rows)
            assert size.nll <= found.sizes[0].nll + loss * gain
            lost = (found.sizes[0].accuracy - size.accuracy) * len(TEXTS)
            assert lost <= loss * right + ((1 - size.agreement) * len(TEXTS)) ** 0.5 + 1e-9
        assert taken[0] > taken[2] > taken[3] and taken == sorted(taken, reverse=True)

    def test_more_rows_than_there_are_is_all_of_them(self, full: Path, tmp_path: Path) -> None:
        assert condense(full, tmp_path / "out", Limit(rows=10**30), silent).size.rows == ROWS

    @pytest.mark.parametrize("limit", [Limit(rows=2), Limit(bytes=300), Limit(bytes=0)])
    def test_impossible_limits_are_refused(self, full: Path, limit: Limit, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"condensed to this limit; found room for \d rows; expected at least 3"):
            condense(full, tmp_path / "out", limit, silent)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("loss", [float("nan"), -0.1, 1.1])
    def test_a_loss_is_a_share(self, loss: float) -> None:
        with pytest.raises(UsageError, match="0 to 1"):
            Limit(loss=loss)

    def test_the_next_smaller_size_would_lose_too_much(self, full: Path, tmp_path: Path) -> None:
        found = frontier(full, silent)
        gain, right = found.reference.gain, found.reference.more_right
        done = condense(full, tmp_path / "out", Limit(loss=0.3), silent)
        place = [size.rows for size in found.sizes].index(done.size.rows)
        smaller = found.sizes[place + 1]
        lost = (found.sizes[0].accuracy - smaller.accuracy) * len(TEXTS)
        assert smaller.nll > found.sizes[0].nll + 0.3 * gain or lost > 0.3 * right

    @pytest.mark.parametrize(
        ("limits", "found"), [({}, "none"), ({"rows": 3, "loss": 0.1}, "--max-rows and --max-loss")]
    )
    def test_exactly_one_limit_is_needed(self, limits: dict[str, float], found: str) -> None:
        with pytest.raises(UsageError, match=f"one limit; found {found};"):
            Limit(**limits)  # type: ignore[arg-type]


class TestFewUnrelatedRows:
    def test_only_measurable_sizes_are_reported(self, tmp_path: Path) -> None:
        """20 of 400 rows: with three classes they measure sizes down to three twentieths."""
        full = build_heldout_bundle(tmp_path / "full", unrelated=20)
        classes = len(set(np.asarray(opened_kb(full).soft_labels)[:20].argmax(axis=1)))
        assert classes > 1 and min(size.rows for size in frontier(full, silent).sizes) >= 20 * classes
        with pytest.raises(UsageError, match=f"expected at least {20 * classes}"):
            condense(full, tmp_path / "out", Limit(rows=20 * classes - 1), silent)


class TestInvalidKnowledgeBases:
    def test_labels_that_are_no_distributions(self, full: Path, tmp_path: Path) -> None:
        shutil.copytree(full, tmp_path / "broken")
        np.save(tmp_path / "broken" / "kb" / "soft_labels.npy", np.zeros((ROWS, 3), np.float16))
        reseal(tmp_path / "broken")
        with pytest.raises(BundleError, match=r"no distribution.*soft_labels\.npy|soft_labels\.npy.*no distribution"):
            frontier(tmp_path / "broken", silent)


class TestSmallAndOdd:
    def test_one_class(self, tmp_path: Path) -> None:
        full = build_heldout_bundle(tmp_path / "full", rows=20, labels=["only"])
        done = condense(full, tmp_path / "out", Limit(rows=1), silent)
        assert (done.size.rows, done.size.accuracy, done.size.kept_nll) == (1, 1.0, None)
        assert "retrieval has no gain" in format_condensed(tmp_path / "out", done)
        assert frontier(full, silent).sizes[-1].rows == 1
        with pytest.raises(UsageError, match="has no gain on the held-out rows"):
            condense(full, tmp_path / "lossless", Limit(loss=0.5), silent)

    def test_fewer_rows_than_k(self, tmp_path: Path) -> None:
        full = build_heldout_bundle(tmp_path / "full", rows=1)
        done = condense(full, tmp_path / "out", Limit(bytes=10**6), silent)
        assert done.size.rows == 1 and done.manifest.quality["search"]["recall"] == 1
        with Runtime.open(tmp_path / "out") as runtime:
            assert len(runtime.predict("noon").neighbours) == 1

    def test_the_same_row_many_times(self, tmp_path: Path) -> None:
        build_tiny_bundle(tmp_path / "full", rows=1)
        kb = opened_kb(tmp_path / "full")
        many = KnowledgeBase.build(
            np.repeat(kb.keys(), 50, axis=0), np.repeat(np.asarray(kb.soft_labels), 50, axis=0), config=kb.config
        )
        many.save(tmp_path / "full" / "kb")
        (tmp_path / "full" / "kb" / "texts.jsonl").unlink()
        reseal(tmp_path / "full", kb_rows=50)
        add_heldout(tmp_path / "full", TEXTS, 50)
        before, after = (
            condense(tmp_path / "full", tmp_path / f"{rows}", Limit(rows=rows), silent) for rows in (50, 1)
        )
        assert after.size.rows == 1 and after.size.nll == pytest.approx(before.size.nll, abs=1e-3)

    @pytest.mark.parametrize(("rows", "texts"), [(0, TEXTS), (50, [])], ids=["no rows", "none held out"])
    def test_nothing_to_do(self, rows: int, texts: list[str], tmp_path: Path) -> None:
        build_tiny_bundle(tmp_path / "full", rows=rows)
        add_heldout(tmp_path / "full", texts, rows)  # type: ignore[arg-type]
        for call in (frontier, lambda path, progress: condense(path, tmp_path / "out", Limit(rows=9), progress)):
            with pytest.raises(UsageError, match="condensing needs rows in the knowledge base and held-out rows"):
                call(tmp_path / "full", silent)
        assert names(tmp_path) == ["full"]


class TestNoPartialOutput:
    def test_where_something_is_already(self, full: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputExistsError):
            condense(full, tmp_path / "out", Limit(rows=50), silent)
        assert (tmp_path / "out").read_text() == "mine"

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
    def test_when_it_is_stopped_while_writing(
        self, full: Path, stop: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(_kb: KnowledgeBase, folder: Path) -> None:
            assert (folder.parent / "student" / "model.onnx").is_file()
            raise stop

        monkeypatch.setattr(KnowledgeBase, "save", stopped)
        with pytest.raises(stop):
            condense(full, tmp_path / "out", Limit(rows=50), silent)
        assert names(tmp_path) == []
