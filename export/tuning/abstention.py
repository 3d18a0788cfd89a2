"""Fit abstention on held-out rows: thresholds of the rejection score, certified error rates, prediction sets.

All three need independent rows: of related rows one is used, and neighbours come from rows not related to them. No
out-of-scope text is used.

The threshold for coverage v is the ceil((n + 1) v)-th smallest rejection score of n rows: a text like them is answered
with at least that probability (the quantile of split conformal prediction).

For a rate of errors e, ranks of the doubt are tested, a hundred of them, from the least doubtful on: among the m rows
up to a rank, k wrong, "the rate among the answered is above e" is refuted where the exact binomial P(K <= k; m, e) is
small enough. As a fixed sequence of tests that ends with the first that fails (Learn then Test, Angelopoulos et al.
2021), it errs with the probability delta at most. Four sequences begin at a tenth, a quarter, half and three quarters
of the rows (or where there are enough to prove anything), since one wrong row among the first few would end any, with a
quarter of delta each; the largest threshold that one of them reaches is taken. Ranks depend on the doubts alone: given
the doubt at a rank, the rows below are independent draws of answered texts (Geifman and El-Yaniv, 2017). Each rate is
certified by itself: to try several and keep the luckiest is not covered.

What none of this covers: texts of another kind, rows that the knowledge base gets later (the held-out ones do join it
by default: new texts then find somewhat nearer rows), and that blend and signals' tails come from the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ...errors import DependencyError
from ...kb.index.exact_search import exact_search, unit
from ...kb.knowledge_base import KnowledgeBase
from ...kb.soft_labels import SoftLabels
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.decision.abstention import Abstention, Certified, DriftReference, Sets, Thresholds
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.decision.conformal import PredictionSets
from ...runtime.decision.gating import Gate
from ...runtime.decision.histogram import AGREEMENT_EDGES, SIMILARITY_EDGES, Histogram
from ...runtime.decision.rejection_score import EmpiricalSurvival, Tails, disagreement, distance, uncertainty
from .build_kb import blend_found

LEAST_ROWS = 20
"""Least number of independent held-out rows for a fit."""

SHARES = (*(step / 20 for step in range(2, 18)), *(step / 100 for step in range(90, 100)), 0.995, 0.999)
"""Coverages with a threshold; the runtime interpolates between them."""

ERRORS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
"""Error rates to certify."""

DELTA = 0.05
_STARTS = (0.1, 0.25, 0.5, 0.75)
_RANKS = 100


def abstention_of(
    kb: KnowledgeBase, heldout: HeldOutRows, blend: BlendConfig, gate: Gate | None = None
) -> Abstention | None:
    """`fit_abstention` for the parts of a bundle, at export or afterwards.

    Args:
        kb: a knowledge base; its first ``heldout.unrelated`` rows are searched exactly.
        heldout: the student's outputs for held-out rows.
        blend: the bundle's blend.
        gate: the bundle's gate.
    """
    keys = unit(kb.keys()[: heldout.unrelated]) if heldout.unrelated else np.zeros((0, kb.ndim), np.float32)
    return fit_abstention(keys, kb.soft_labels, heldout, blend, gate)


def fit_abstention(
    keys: NDArray[np.float32], labels: SoftLabels, heldout: HeldOutRows, blend: BlendConfig, gate: Gate | None = None
) -> Abstention | None:
    """Fit thresholds, certified error rates and prediction sets; None if there are too few held-out rows or keys.

    Args:
        keys: float32 [n, d], of length 1, of rows not related to the held-out ones.
        labels: soft labels of at least n rows.
        heldout: the student's outputs for held-out rows.
        blend: the bundle's blend.
        gate: the bundle's gate, for prediction sets of gated answers.

    Raises:
        DependencyError: MAPIE is not installed.
    """
    prediction_sets = _mapie()
    each = np.unique(heldout.groups, return_index=True)[1]
    if len(each) < LEAST_ROWS or not len(keys):
        return None
    gold = heldout.gold[each]
    found, similarities = exact_search(keys, heldout.queries[each], blend.k)
    answers = blend_found(found, similarities, labels, blend, heldout.logits[each])
    student, retrieved = answers.student, answers.retrieval
    agreement = disagreement(student, retrieved)
    tails = Tails(
        EmpiricalSurvival.of(distance(similarities)),
        EmpiricalSurvival.of(uncertainty(student)),
        EmpiricalSurvival.of(agreement),
    )
    rejection_scores, alone = (
        tails.rejection_scores(student, retrieved, similarities),
        tails.student_rejection_scores(student),
    )
    gated = None if gate is None else _gated(answers.student, answers.blend, gate)
    return Abstention(
        rows=len(each),
        delta=DELTA,
        tails=tails,
        blend=_thresholds(rejection_scores, answers.blend.argmax(axis=1) != gold),
        student=_thresholds(alone, student.argmax(axis=1) != gold),
        sets=Sets(
            prediction_sets(answers.blend, gold),
            prediction_sets(student, gold),
            None if gated is None else prediction_sets(gated, gold),
        ),
        reference=DriftReference(
            Histogram.of(similarities[:, 0], SIMILARITY_EDGES), Histogram.of(1.0 - agreement, AGREEMENT_EDGES)
        ),
    )


def certified_threshold(
    rejection_scores: NDArray[np.floating], wrong: NDArray[np.bool_], error: float, delta: float = DELTA
) -> Certified | None:
    """The largest threshold with a certified error rate; None if no threshold can be certified.

    Args:
        rejection_scores: [n], of independent rows.
        wrong: [n], whether the answer is.
        error: the error rate, 0 to 1.
        delta: the probability that the certificate is wrong.
    """
    rows = len(rejection_scores)
    ranks = np.unique(np.ceil(np.arange(1, _RANKS + 1) * rows / _RANKS).astype(np.int64))
    thresholds = [_rounded_up(float(one)) for one in np.sort(rejection_scores)[ranks - 1]]
    # The runtime treats all rows with the same score alike.
    answered = np.array([(rejection_scores <= threshold).sum() for threshold in thresholds])
    failed = np.array([(wrong & (rejection_scores <= threshold)).sum() for threshold in thresholds])
    level = delta / len(_STARTS)
    passed = binom.cdf(failed, answered, error) <= level
    fewest = math.log(level) / math.log1p(-error)  # rows, none of them wrong, that are needed for a proof
    best = -1
    for start in _STARTS:
        first = int(np.searchsorted(ranks, max(start * rows, fewest)))
        run = passed[first:]
        best = max(best, first + (len(run) if run.all() else int(np.argmin(run))) - 1 if run[:1].any() else -1)
    if best < 0:
        return None
    return Certified(error, thresholds[best], int(answered[best]), int(failed[best]))


def _mapie() -> Callable[[NDArray[np.floating], NDArray[np.integer]], PredictionSets]:
    # Not at the top: it takes seconds to import, and `condense` needs it only for bundles with abstention.
    try:
        from .conformal import prediction_sets
    except ModuleNotFoundError as error:
        raise DependencyError(
            "fitting abstention thresholds needs the train extra",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[train]'.",
        ) from error
    return prediction_sets


def _thresholds(rejection_scores: NDArray[np.floating], wrong: NDArray[np.bool_]) -> Thresholds:
    rows, ordered = len(rejection_scores), np.sort(rejection_scores)
    shares = [share for share in SHARES if _rank(share, rows) <= rows]
    values = [_rounded_up(float(ordered[_rank(share, rows) - 1])) for share in shares]
    errors: list[Certified] = []
    for error in ERRORS:
        found = certified_threshold(rejection_scores, wrong, error)
        if found is not None:
            errors.append(found)
        if found is not None and found.answered == rows:
            break  # a larger rate answers no more rows
    return Thresholds(tuple(shares), tuple(values), tuple(errors))


def _rank(share: float, rows: int) -> int:
    return math.ceil(share * (rows + 1) - 1e-9)  # 0.07 * 100 is 7.000000000000001


def _gated(student: NDArray[np.floating], blend: NDArray[np.floating], gate: Gate) -> NDArray[np.floating]:
    sure = student.max(axis=1, keepdims=True) >= gate.threshold
    return np.where(sure, student, blend)


def _rounded_up(value: float) -> float:
    """Round up to six digits, so that the last bit of another compiler does not leave a row out."""
    return math.ceil(value * 1e6) / 1e6


def describe_abstention(abstention: Abstention | None) -> str:
    """A description of an abstention fit, for the terminal."""
    if abstention is None:
        return f"none: fewer than {LEAST_ROWS} independent held-out rows, or an empty knowledge base"
    errors = abstention.blend.errors
    rows = f"{abstention.rows} held-out rows"
    if not errors:
        return f"by coverage; too few of {rows}, or too many of them wrong, to certify an error rate"
    least = errors[0]
    return (
        f"by coverage, or by error rate from {least.error:.1%} on, "
        f"which answers {least.answered / abstention.rows:.0%} of {rows}"
    )
