"""Fit abstention on held-out rows: thresholds of the rejection score, certified error rates, prediction sets.

All three need independent rows. Therefore one of several related rows is used, and neighbours come from rows that are
not related to them. Out-of-scope texts are not used.

Coverage: the threshold for coverage v is the ceil((n + 1) v)-th smallest rejection score of n rows. A text from the
same distribution is answered with probability v or more (the quantile of split conformal prediction).

Error rate: for a rate e, a hundred ranks of the rejection score are tested, from the lowest score up. With k wrong rows
among the m rows up to a rank, the hypothesis "the error rate among answered texts is above e" is rejected if the exact
binomial P(K <= k; m, e) is small enough. The sequence of tests is fixed and ends with the first hypothesis that is not
rejected, so the probability of a false certificate is at most delta (Learn then Test, Angelopoulos et al. 2021). One
wrong row among the first few would end a sequence early. Therefore four sequences start at a tenth, a quarter, half and
three quarters of the rows (or at the first rank with enough rows for a proof), each with a quarter of delta, and the
largest threshold of the four is used. Ranks depend on the rejection scores only: given the score at a rank, the rows
below it are independent draws of answered texts (Geifman and El-Yaniv, 2017). Each rate has its own certificate; the
best of several rates is not certified.

Not covered: texts unlike the held-out rows, rows that are added to the knowledge base later (by default the held-out
rows are added, so new texts find nearer rows), and the blend and the score's distributions, which come from the same
rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ...errors import DependencyError
from ...kb.index.shard_tuning import exact_neighbours
from ...kb.knowledge_base import KnowledgeBase
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.decision.abstention_thresholds import Abstention, Certified, DriftReference, Sets, Thresholds
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.decision.conformal import PredictionSets
from ...runtime.decision.gating import Gate
from ...runtime.decision.histogram import AGREEMENT_EDGES, SIMILARITY_EDGES, Histogram
from ...runtime.decision.rejection_score import EmpiricalSurvival, Tails, disagreement, distance, uncertainty
from .build_kb import Neighbours, blend_found

LEAST_ROWS = 20
"""Smallest number of independent held-out rows for a fit."""

SHARES = (*(step / 20 for step in range(2, 18)), *(step / 100 for step in range(90, 100)), 0.995, 0.999)
"""Coverages with a threshold; the runtime interpolates between them."""

ERRORS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
"""Error rates to certify."""

DELTA = 0.05
_STARTS = (0.1, 0.25, 0.5, 0.75)
_RANKS = 100


def abstention_of(
    kb: KnowledgeBase,
    heldout: HeldOutRows,
    blend: BlendConfig,
    gate: Gate | None = None,
    neighbours: Neighbours | None = None,
) -> Abstention | None:
    """Fit thresholds, certified error rates and prediction sets; None if there are too few held-out rows or keys.

    Args:
        kb: the knowledge base.
        heldout: the student's outputs for held-out rows.
        blend: the bundle's blend.
        gate: the bundle's gate, for prediction sets of gated answers.
        neighbours: of the held-out rows; None for those among the first ``heldout.unrelated`` rows by exact search.

    Raises:
        DependencyError: MAPIE is not installed.
    """
    prediction_sets = _mapie()
    each = np.unique(heldout.groups, return_index=True)[1]
    if len(each) < LEAST_ROWS or not heldout.unrelated:
        return None
    gold = heldout.gold[each]
    if neighbours is None:
        found, similarities = exact_neighbours(kb.index, heldout.queries[each], blend.k, heldout.unrelated)
    else:
        found, similarities = neighbours.rows[each], neighbours.similarities[each]
    answers = blend_found(found, similarities, kb.soft_labels, blend, heldout.logits[each])
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
    """Find the largest threshold with a certified error rate; None if no threshold can be certified.

    Args:
        rejection_scores: [n], of independent rows.
        wrong: [n], whether the answer is wrong.
        error: the error rate, 0 to 1.
        delta: largest probability of a false certificate.
    """
    rows = len(rejection_scores)
    ranks = np.unique(np.ceil(np.arange(1, _RANKS + 1) * rows / _RANKS).astype(np.int64))
    thresholds = [_rounded_up(float(one)) for one in np.sort(rejection_scores)[ranks - 1]]
    # The runtime treats all rows with the same score alike.
    answered = np.array([(rejection_scores <= threshold).sum() for threshold in thresholds])
    failed = np.array([(wrong & (rejection_scores <= threshold)).sum() for threshold in thresholds])
    level = delta / len(_STARTS)
    passed = binom.cdf(failed, answered, error) <= level
    fewest = math.log(level) / math.log1p(-error)  # number of rows needed for a proof if none is wrong
    best = -1
    for start in _STARTS:
        first = int(np.searchsorted(ranks, max(start * rows, fewest)))
        run = passed[first:]
        best = max(best, first + (len(run) if run.all() else int(np.argmin(run))) - 1 if run[:1].any() else -1)
    if best < 0:
        return None
    return Certified(error, thresholds[best], int(answered[best]), int(failed[best]))


def _mapie() -> Callable[[NDArray[np.floating], NDArray[np.integer]], PredictionSets]:
    # Imported here, because it takes seconds and `condense` needs it only for bundles with abstention.
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


def describe_abstention(abstention: Abstention | None, rows: str = "held-out rows") -> str:
    """Describe an abstention fit for the terminal.

    Args:
        abstention: the fit; None if there is none.
        rows: which rows it was fitted on.
    """
    if abstention is None:
        return f"none: fewer than {LEAST_ROWS} independent {rows}, or an empty knowledge base"
    errors, rows = abstention.blend.errors, f"{abstention.rows} {rows}"
    if not errors:
        return f"by coverage; no error rate can be certified: {rows} are too few, or too many of them are wrong"
    least = errors[0]
    return (
        f"by coverage, or by error rate from {least.error:.1%}, "
        f"which answers {least.answered / abstention.rows:.0%} of {rows}"
    )
