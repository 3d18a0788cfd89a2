"""Size/quality curve against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reaugkd.errors import UsageError
from reaugkd.export.bundle.condensation_curve import CurveInputs, Reference, blends_of
from reaugkd.kb.soft_labels import encode
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.decision.blend_config import BlendConfig


def answered(nll: list[float], right: str) -> CurveInputs:
    """Results with a given NLL, correct where there is a 1; a wrong label is 9."""
    is_right = np.array([mark == "1" for mark in right])
    return CurveInputs(np.where(is_right, 0, 9), is_right, np.array(nll))


STUDENT = answered([2.0, 2.0, 2.0, 2.0], "0000")
FULL = answered([1.0, 1.0, 1.0, 1.0], "1110")
REFERENCE = Reference(STUDENT, FULL, np.arange(4))


def test_answers_of_probabilities() -> None:
    found = CurveInputs.of(np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]), np.array([1, 1, 1]))
    assert found.labels.tolist() == [1, 0, 0] and found.right.tolist() == [True, False, False]
    np.testing.assert_allclose(found.nll[:2], -np.log([0.75, 0.5]))
    assert 20 < found.nll[2] < 30  # NLL of probability 0


def test_shares_of_the_gain() -> None:
    size = REFERENCE.size(17, 1234, answered([1.0, 1.0, 1.0, 3.0], "1100"))
    assert (size.rows, size.bytes, size.accuracy, size.nll) == (17, 1234, 0.5, 1.5)
    assert size.kept_accuracy == pytest.approx(2 / 3)
    assert size.kept_nll == pytest.approx(0.5)
    # Losses 0, 0, 0 and 2 of a gain of 1: deviation 0.866, over the root of 4 rows.
    assert size.kept_nll_error == pytest.approx(3**0.5 / 4)
    assert size.agreement == 0.75
    # Rows 0 and 1 are related, and so are 2 and 3: deviations -1 and 1 in place of -0.5, -0.5, -0.5 and 1.5.
    related = Reference(STUDENT, FULL, np.array([0, 0, 2, 2]))
    assert related.size(1, 1, answered([1.0, 1.0, 1.0, 3.0], "1100")).kept_nll_error == pytest.approx(2**0.5 / 4)
    assert size.as_dict()["kept_nll"] == size.kept_nll


def test_no_gain_gives_no_share() -> None:
    none = Reference(STUDENT, STUDENT, np.arange(4))
    size = none.size(1, 1, FULL)
    assert (size.kept_accuracy, size.kept_nll, size.kept_nll_error) == (None, None, None)
    with pytest.raises(UsageError, match=r"has no gain.*2\.0000 -> 2\.0000.*--max-rows or --max-bytes"):
        none.smallest_within(0.5, [FULL])


class TestTheSmallest:
    ROWS = 100

    def reference(self) -> Reference:
        """A gain of 0.1 nats and 20 right answers."""
        return Reference(self.of(0.4, 60), self.of(0.3, 80), np.arange(self.ROWS))

    def of(self, nll: float, right: int) -> CurveInputs:
        return answered([nll] * self.ROWS, "1" * right + "0" * (self.ROWS - right))

    def chosen(self, loss: float, *sizes: CurveInputs) -> int:
        return self.reference().smallest_within(loss, sizes)

    def test_of_those_that_keep_enough(self) -> None:
        sizes = [self.of(0.3, 80), self.of(0.302, 80), self.of(0.304, 80), self.of(0.309, 80), self.of(0.35, 80)]
        assert [self.chosen(loss, *sizes) for loss in (0, 0.03, 0.05, 0.1, 0.4, 0.6)] == [0, 1, 2, 3, 3, 4]

    def test_a_size_below_an_insufficient_one_is_not_chosen(self) -> None:
        assert self.chosen(0.05, self.of(0.3, 80), self.of(0.31, 80), self.of(0.3, 80)) == 0

    def test_a_better_size_keeps_enough(self) -> None:
        assert self.chosen(0, self.of(0.3, 80), self.of(0.29, 81)) == 1

    def test_accuracy_may_lose_its_share_and_a_standard_error(self) -> None:
        # Of 20 right ones 0.1 is 2. With 4 wrong ones, which differ, 2 more may be lost; with 9, 3 more may.
        assert self.chosen(0.1, self.of(0.3, 80), self.of(0.3, 76)) == 1
        assert self.chosen(0.1, self.of(0.3, 80), self.of(0.3, 75)) == 0
        assert self.chosen(0.3, self.of(0.3, 80), self.of(0.3, 71)) == 1
        assert self.chosen(0.29, self.of(0.3, 80), self.of(0.3, 71)) == 0


def test_blends_are_those_of_the_nearest_rows() -> None:
    """Against the formula in float64, with all neighbours in one loop."""
    rng = np.random.default_rng(0)
    keys, queries = (rng.standard_normal((rows, 6)) for rows in (50, 9))
    keys, queries = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (keys, queries))
    labels, logits = rng.dirichlet(np.ones(3), size=60), rng.standard_normal((9, 3))
    heldout = HeldOutRows(
        logits.astype(np.float32), queries.astype(np.float32), np.zeros(9, np.int64), np.arange(9), 50
    )
    blend = BlendConfig(k=5, tau=0.2, student_weight=0.3, student_temperature=2.0)
    found = blends_of(keys.astype(np.float32), encode(labels), blend, heldout)
    for row in range(9):
        near = sorted(range(50), key=lambda key: -(keys[key] @ queries[row]))[:5]
        shares = np.exp([keys[key] @ queries[row] / 0.2 for key in near])
        retrieved = shares @ labels[near] / shares.sum()
        student = np.exp(logits[row] / 2) / np.exp(logits[row] / 2).sum()
        np.testing.assert_allclose(found.blend[row], 0.3 * student + 0.7 * retrieved, atol=2e-3)
