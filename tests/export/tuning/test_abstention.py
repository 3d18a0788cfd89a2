"""Thresholds against brute force, and guarantees against simulations with known error rates."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from support.heldout_bundle import build_heldout_bundle

from reaugkd.export.tuning.abstention import LEAST_ROWS, abstention_of, certified_threshold, describe_abstention
from reaugkd.export.tuning.conformal import prediction_sets
from reaugkd.kb.index.exact_search import exact_search
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.decision.abstention_thresholds import Abstention
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.conformal import COVERAGES
from reaugkd.runtime.decision.gating import Gate


class TestCertifiedErrors:
    def test_by_hand(self) -> None:
        """200 rows, the last 40 of them wrong. For 5 %: k wrong of m where P(K <= k; m, 0.05) <= 0.05 / 4."""
        rejection_scores, wrong = np.arange(200.0), np.arange(200) >= 160
        found = certified_threshold(rejection_scores, wrong, 0.05)
        assert found is not None
        steps = range(2, 201, 2)
        passed = [m for m in steps if binom.cdf(max(0, m - 160), m, 0.05) <= 0.0125]
        assert (found.threshold, found.answered, found.wrong) == (
            max(passed) - 1,
            max(passed),
            max(0, max(passed) - 160),
        )

    def test_nothing_wrong_answers_all(self) -> None:
        found = certified_threshold(np.arange(1000.0), np.zeros(1000, bool), 0.01)
        assert found is not None and (found.answered, found.wrong, found.threshold) == (1000, 0, 999.0)

    def test_too_few_rows_prove_nothing(self) -> None:
        """0 wrong of 80: 0.95^80 = 0.0165 is above 0.0125; of 86, 0.0121 is not."""
        assert certified_threshold(np.arange(80.0), np.zeros(80, bool), 0.05) is None
        assert certified_threshold(np.arange(86.0), np.zeros(86, bool), 0.05) is not None

    def test_a_wrong_row_at_the_start_ends_one_sequence_and_not_all(self) -> None:
        wrong = np.zeros(2000, bool)
        wrong[:5] = True
        found = certified_threshold(np.arange(2000.0), wrong, 0.02)
        assert found is not None and found.answered == 2000

    def test_rows_with_equal_scores_are_treated_alike(self) -> None:
        rejection_scores, wrong = np.repeat([0.0, 1.0], 300), np.zeros(600, bool)
        wrong[300:] = True
        found = certified_threshold(rejection_scores, wrong, 0.05)
        assert found is not None and (found.threshold, found.answered, found.wrong) == (0.0, 300, 0)

    def test_the_rate_is_exceeded_no_more_often_than_delta(self) -> None:
        """Doubt is uniform and a row of doubt d is wrong with probability d^2 / 4: the rate below t is t^2 / 12."""
        rng, bad, answered = np.random.default_rng(0), 0, []
        for _ in range(300):
            rejection_scores = rng.random(400)
            wrong = rng.random(400) < rejection_scores**2 / 4
            found = certified_threshold(rejection_scores, wrong, 0.04)
            if found is not None:
                bad += found.threshold**2 / 12 > 0.04
                answered.append(found.threshold)
        # The true limit is t = 0.69. With delta 0.05, 26 of 300 would be rejected at the level of 1 %.
        assert bad < binom.isf(0.01, 300, 0.05)
        assert np.mean(answered) > 0.3  # otherwise the guarantee would be empty


@st.composite
def drawn(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rows, classes = draw(st.integers(12, 300)), draw(st.integers(2, 6))
    probabilities = rng.dirichlet(np.full(classes, draw(st.floats(0.2, 3))), rows)
    return probabilities, np.array([rng.choice(classes, p=one) for one in probabilities])


class TestPredictionSets:
    @given(drawn())
    def test_they_are_the_split_conformal_quantile(self, case: tuple[np.ndarray, np.ndarray]) -> None:
        """By its definition in numpy: the ceil((n + 1) coverage)-th smallest of 1 - p_gold."""
        probabilities, gold = case
        rows = len(gold)
        scores = np.sort(1 - probabilities[np.arange(rows), gold])
        found = prediction_sets(probabilities, gold)
        assert set(found.coverages) == {share for share in COVERAGES if rows > round(1 / (1 - share), 9)}
        for share, least in zip(found.coverages, found.least, strict=True):
            rank = min(math.ceil(round((rows + 1) * share, 9)), rows)
            assert least == pytest.approx(1 - scores[rank - 1], abs=2e-6) and least <= 1 - scores[rank - 1]

    def test_new_rows_are_covered_as_promised(self) -> None:
        rng = np.random.default_rng(5)

        def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
            truth = rng.dirichlet(np.full(8, 0.4), count)
            gold = np.array([rng.choice(8, p=one) for one in truth])
            wrong = (
                truth**0.6 + rng.random(truth.shape) * 0.1
            )  # the guarantee does not depend on the model's calibration
            return wrong / wrong.sum(axis=1, keepdims=True), gold

        covered = []
        for _ in range(20):
            found = prediction_sets(*rows(300))
            new, gold = rows(1000)
            covered.append(np.mean(new[np.arange(1000), gold] >= found.of(0.9)))
        assert 0.89 < np.mean(covered) < 0.92

    def test_few_rows_have_few_sets(self) -> None:
        assert prediction_sets(np.full((3, 2), 0.5), np.array([0, 1, 0])).coverages == ()

    def test_many_classes_make_no_warning(self) -> None:
        """MAPIE's checks take classes of one or two rows for a regression; a warning is an error in these tests."""
        probabilities = np.random.default_rng(0).dirichlet(np.ones(60), 100)
        assert prediction_sets(probabilities, np.arange(100) % 60).coverages


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnowledgeBase, HeldOutRows, BlendConfig]:
    path = build_heldout_bundle(tmp_path_factory.mktemp("full") / "bundle", unrelated=300)
    manifest = Bundle.open(path).manifest
    kb = KnowledgeBase.open(path / "kb", manifest.kb, 3)
    return kb, HeldOutRows.open(path, 3, kb.ndim, len(kb)), manifest.blend


class TestFitting:
    def test_one_row_of_each_group_counts_and_neighbours_are_unrelated(
        self, parts: tuple[KnowledgeBase, HeldOutRows, BlendConfig]
    ) -> None:
        kb, heldout, blend = parts
        found = abstention_of(kb, heldout, blend)
        assert found is not None and found.rows == 30 and found.sets.gated is None
        keys = kb.keys()[:300]
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        near = exact_search(keys, heldout.queries[::2], blend.k)[1]
        assert found.tails.distance.values[0] == pytest.approx((1 - near[:, :4].mean(axis=1)).min(), abs=1e-6)
        counts = np.array(found.reference.similarity.counts)
        assert counts.sum() == 30
        assert counts[-1] == (near[:, 0] > found.reference.similarity.edges[-1]).sum()

    def test_coverages_are_conformal_ranks(self, parts: tuple[KnowledgeBase, HeldOutRows, BlendConfig]) -> None:
        kb, heldout, blend = parts
        found = abstention_of(kb, heldout, blend)
        assert found is not None
        # 30 rows: 31 c <= 30 up to 0.967. The doubt of the 28th and of the 30th largest row.
        assert found.blend.coverages[0] == 0.1 and found.blend.coverages[-1] == 0.96
        rejection_scores = dict(zip(found.blend.coverages, found.blend.rejection_scores, strict=True))
        assert rejection_scores[0.96] > rejection_scores[0.9] > rejection_scores[0.5] > rejection_scores[0.1]
        assert math.ceil(0.9 * 31) == 28 and math.ceil(0.96 * 31) == 30
        most = found.tails.rejection_scores(*self._answers(parts))
        assert rejection_scores[0.96] == pytest.approx(most.max(), abs=1e-5)
        assert rejection_scores[0.9] == pytest.approx(np.sort(most)[27], abs=1e-5)

    @staticmethod
    def _answers(parts: tuple[KnowledgeBase, HeldOutRows, BlendConfig]) -> tuple[np.ndarray, ...]:
        from reaugkd.export.tuning.build_kb import blend_found

        kb, heldout, blend = parts
        keys = kb.keys()[:300]
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        rows, near = exact_search(keys, heldout.queries[::2], blend.k)
        said = blend_found(rows, near, kb.soft_labels, blend, heldout.logits[::2])
        return said.student, said.retrieval, near

    def test_the_sets_of_a_gate_use_gated_answers(self, parts: tuple[KnowledgeBase, HeldOutRows, BlendConfig]) -> None:
        kb, heldout, blend = parts

        def with_gate(threshold: float) -> Abstention:
            found = abstention_of(kb, heldout, blend, Gate(threshold, 0.1, 0.1, 9, 0, 0.5))
            assert found is not None and found.sets.gated is not None
            return found

        assert with_gate(0.0).sets.gated == with_gate(0.0).sets.student
        assert with_gate(1.0).sets.gated == with_gate(1.0).sets.blend != with_gate(1.0).sets.student

    def test_too_little_to_fit_on(self, parts: tuple[KnowledgeBase, HeldOutRows, BlendConfig]) -> None:
        kb, heldout, blend = parts
        assert abstention_of(kb, replace(heldout, unrelated=0), blend) is None
        few = heldout.some(LEAST_ROWS - 1)
        assert abstention_of(kb, few, blend) is None
        assert "none: fewer than 20" in describe_abstention(None)
        found = abstention_of(kb, heldout, blend)
        assert describe_abstention(found).startswith("by coverage")


def test_a_missing_module_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from reaugkd.errors import DependencyError

    path = build_heldout_bundle(tmp_path / "bundle")
    manifest = Bundle.open(path).manifest
    kb = KnowledgeBase.open(path / "kb", manifest.kb, 3)
    heldout = HeldOutRows.open(path, 3, kb.ndim, len(kb))
    monkeypatch.delitem(sys.modules, "reaugkd.export.tuning.conformal", raising=False)
    monkeypatch.setitem(sys.modules, "mapie.classification", None)
    with pytest.raises(DependencyError, match=r"reaugkd\[train\]"):
        abstention_of(kb, heldout, manifest.blend)
