"""Choose k, tau, the mixture weight and the temperatures by held-out negative log-likelihood (NLL).

The teacher must not have been fitted on these rows, and the knowledge base must not contain them: on its training rows
the teacher is over-confident, and a stored row would retrieve itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kb.storage.json_fields import JsonReader
from ...runtime.decision.blend_config import BlendConfig, read_blend
from ...runtime.decision.blending import interpolate, softmax_many
from ..recipe import Weighting
from ..types import Floats
from .grid import Candidates, Setting, fewest_neighbours
from .groups import mean_and_error
from .mixture_weight import KINDS, WeightInputs, fit_weighting

K_GRID = (1, 2, 4, 8, 16, 32, 64)
TAU_GRID = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.5, 1.0)
LABEL_TEMPERATURE_GRID = (1.0, 1.5, 2.0, 3.0, 4.0)
K_LOSS = 0.02
"""Share of retrieval's gain that a smaller k may lose, because each neighbour costs time."""
_TINY = 1e-12


@dataclass(frozen=True)
class HeldOut:
    """The data of n held-out rows with k neighbours each, the largest k to try.

    Args:
        student_logits: [n, c].
        similarities: [n, k], descending.
        neighbour_logits: [n, k, c], the teacher's logits.
        gold: [n], int64, class indices.
        neighbour_gold: [n, k], the neighbours' gold labels, -1 for none; None if no neighbour has one.
        groups: [n], the rows' groups (`related_rows`); None if no rows are related.
        true: number of rows with a gold label, which come first; the labels of the others in ``gold`` are
            pseudo-labels from the teacher. None for all.
    """

    student_logits: NDArray[np.float32]
    similarities: NDArray[np.float32]
    neighbour_logits: NDArray[np.float32]
    gold: NDArray[np.int64]
    neighbour_gold: NDArray[np.int64] | None = None
    groups: NDArray[np.integer] | None = None
    true: int | None = None

    @property
    def pseudo_labelled(self) -> int:
        """The number of pseudo-labelled validation rows."""
        return 0 if self.true is None else len(self.gold) - self.true

    def known(self) -> HeldOut:
        """Return the rows with a gold label."""
        end = self.true
        return HeldOut(
            self.student_logits[:end],
            self.similarities[:end],
            self.neighbour_logits[:end],
            self.gold[:end],
            None if self.neighbour_gold is None else self.neighbour_gold[:end],
            None if self.groups is None else self.groups[:end],
        )


@dataclass(frozen=True)
class Tuning:
    """The chosen blend and a report of the choice.

    Args:
        blend: the chosen blend.
        rows: number of held-out rows and pseudo-labelled validation rows.
        nll: mean negative log-likelihood of ``student`` (with its fitted temperature), ``retrieval`` (at the chosen
            settings) and ``blend``.
        by_k: NLL of the best blend at each k.
        weight_cv_nll: cross-validated NLL of each compared form of the weight; may be empty.
        pseudo_labelled: number of pseudo-labelled validation rows in ``rows``.
    """

    blend: BlendConfig
    rows: int
    nll: dict[str, float]
    by_k: dict[str, float] = field(default_factory=dict)
    weight_cv_nll: dict[str, float] = field(default_factory=dict)
    pseudo_labelled: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Tuning:
        """Read the values of ``as_dict`` from a JSON file."""
        table = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**table, "blend": read_blend(JsonReader(table["blend"], path))})


def soft_labels(
    logits: NDArray[np.floating], gold: NDArray[np.integer] | None, temperature: float, gold_share: float
) -> Floats:
    """Compute soft labels: (1 - g) softmax(logits / T) + g onehot(gold), with g = 0 for rows without a gold label.

    Args:
        logits: [..., c], the teacher's logits.
        gold: [...], gold labels, -1 for none; None if no row has one.
        temperature: T.
        gold_share: g, the share of the gold label.
    """
    labels = _softmax(logits, temperature)
    if gold is None or gold_share == 0:
        return labels
    shares = np.where(gold >= 0, gold_share, 0.0)[..., None]
    mixed: Floats = (1 - shares) * labels + shares * (np.arange(labels.shape[-1]) == gold[..., None])
    return mixed


def tune_blend(
    rows: HeldOut,
    weight: Weighting = "constant",
    *,
    label_temperatures: Sequence[float] = LABEL_TEMPERATURE_GRID,
    gold_shares: Sequence[float] = (0.0,),
    one_se_rule: bool = False,
    k_loss: float = K_LOSS,
) -> Tuning:
    """Choose the blend with the lowest held-out NLL over the grid; the NLL is convex in the weight, which is exact.

    p = w softmax(l_S / T_S) + (1 - w) sum_j softmax_j(s_j / tau) y_j, with y_j from ``soft_labels``; T_S is fitted
    first, on the student alone.

    If neighbours do not help, w = 1 is best and the blend equals the student. The choice is the smallest k with almost
    the gain of the best k. If the pseudo-labelled rows lead to a blend that is worse than the student on the rows with
    a gold label, by more than a standard error, the blend is tuned again on the rows with a gold label only.

    Args:
        rows: the held-out rows.
        weight: form of the mixture weight. It is fitted after all other settings are chosen with a constant weight. It
            is constant for fewer than 50 rows; ``"auto"`` chooses the form by cross-validated NLL.
        label_temperatures: temperatures of the soft labels to try.
        gold_shares: shares of the gold label in the soft labels to try.
        one_se_rule: set w = 1 unless cross-validation shows a gain of more than one standard error.
        k_loss: share of the best k's gain over the student that a smaller k may lose.
    """
    everyone = np.arange(len(rows.gold))
    # Fitted on gold labels only: the student agrees more with its teacher than with the gold labels.
    known = slice(rows.true)
    student_temperature = fit_temperature(rows.student_logits[known], rows.gold[known])
    student = _softmax(rows.student_logits, student_temperature)[everyone, rows.gold]
    alone = Tuning(BlendConfig(1, TAU_GRID[0], 1.0, student_temperature), len(rows.gold), {"student": _nll(student)})
    candidates = _candidates(rows, label_temperatures, gold_shares)
    if not candidates.settings:  # an empty knowledge base
        return replace(alone, nll={**alone.nll, "blend": _nll(student)})
    by_k = candidates.best_by_k(student)
    best = fewest_neighbours(by_k, _nll(student), k_loss)
    setting, share, nll = candidates.settings[best.number], best.weight, best.nll
    if one_se_rule and not (share < 1 and candidates.pays(student, rows.groups, k_loss)):
        share, nll, weight = 1.0, _nll(student), "constant"
    if rows.pseudo_labelled and _misled(student[known], candidates.of_gold[best.number, known], share, rows.groups):
        return tune_blend(
            rows.known(),
            weight,
            label_temperatures=label_temperatures,
            gold_shares=gold_shares,
            one_se_rule=one_se_rule,
            k_loss=k_loss,
        )
    tuning = replace(
        alone,
        blend=BlendConfig(
            setting.k, setting.tau, share, student_temperature, setting.label_temperature, setting.gold_share
        ),
        nll={**alone.nll, "retrieval": best.retrieval_nll, "blend": nll},
        by_k={str(k): of_k.nll for k, of_k in by_k.items()},
        pseudo_labelled=rows.pseudo_labelled,
    )
    return tuning if weight == "constant" else _with_weight(tuning, rows, weight)


def _candidates(rows: HeldOut, label_temperatures: Sequence[float], gold_shares: Sequence[float]) -> Candidates:
    """Compute the retrieved probability of each row's gold label at every point of the grid."""
    same = _same_label(rows)
    depths = [k for k in K_GRID if k <= rows.similarities.shape[1]]
    settings, of_gold = [], []
    for label_temperature in label_temperatures:
        labels = _softmax(rows.neighbour_logits, label_temperature)
        by_teacher = np.take_along_axis(labels, rows.gold[:, None, None], axis=2)[:, :, 0]
        for gold_share in gold_shares if same is not None else (0.0,):
            for_gold = by_teacher if same is None else _mixed(by_teacher, same, gold_share)
            for tau in TAU_GRID:
                weights = np.exp((rows.similarities - rows.similarities[:, :1]).astype(np.float64) / tau)
                retrieved = np.cumsum(weights * for_gold, axis=1) / np.cumsum(weights, axis=1)
                settings += [Setting(k, tau, label_temperature, gold_share) for k in depths]
                of_gold += [retrieved[:, k - 1] for k in depths]
    return Candidates(settings, np.array(of_gold).reshape(len(settings), len(rows.gold)))


def _misled(student: Floats, retrieved: Floats, share: float, groups: NDArray[np.integer] | None) -> bool:
    """Whether the blend is worse than the student on these rows, by more than a standard error."""
    ratio = np.maximum(interpolate(student, retrieved, share), _TINY) / np.maximum(student, _TINY)
    groups = np.arange(len(student)) if groups is None else groups[: len(student)]
    gain, error = mean_and_error(np.log(ratio), groups)
    return gain < -error


def _same_label(rows: HeldOut) -> NDArray[np.floating] | None:
    """Compare gold labels, [n, k]: 1 if a neighbour has the row's gold label, 0 if another, NaN if it has none."""
    if rows.neighbour_gold is None:
        return None
    return np.where(rows.neighbour_gold < 0, np.nan, rows.neighbour_gold == rows.gold[:, None])


def _mixed(by_teacher: Floats, same: NDArray[np.floating], gold_share: float) -> Floats:
    """Add a share of gold to the neighbours' probabilities of each row's gold label, as in ``soft_labels``."""
    return np.where(np.isnan(same), by_teacher, (1 - gold_share) * by_teacher + gold_share * np.nan_to_num(same))


def _with_weight(tuning: Tuning, rows: HeldOut, form: Weighting) -> Tuning:
    """Fit a weight of the given form, or of the best form, at the chosen settings."""
    chosen = fit_weighting(_weight_inputs(rows, tuning.blend), KINDS if form == "auto" else (form,))
    if chosen.weight is None:
        return replace(tuning, weight_cv_nll=chosen.cv_nll)
    return replace(
        tuning,
        blend=replace(tuning.blend, weight=chosen.weight),
        nll={**tuning.nll, "blend": chosen.nll},
        weight_cv_nll=chosen.cv_nll,
    )


def _weight_inputs(rows: HeldOut, blend: BlendConfig) -> WeightInputs:
    """Compute the inputs of the weight fit at the chosen settings."""
    near = rows.similarities[:, : blend.k].astype(np.float64)
    gold = None if rows.neighbour_gold is None else rows.neighbour_gold[:, : blend.k]
    labels = soft_labels(rows.neighbour_logits[:, : blend.k], gold, blend.label_temperature, blend.gold_share)
    return WeightInputs(
        student=_softmax(rows.student_logits, blend.student_temperature),
        retrieved=np.einsum("nk,nkc->nc", _softmax(near, blend.tau), labels),
        top=near[:, 0],
        gold=rows.gold,
        groups=rows.groups,
    )


def fit_temperature(logits: NDArray[np.float32], gold: NDArray[np.int64]) -> float:
    """Fit the temperature T in [0.25, 20] that minimises the NLL of softmax(logits / T), to three digits.

    Temperature scaling (Guo et al. 2017). The NLL is convex in 1 / T, so T is found by bisection of the derivative.

    Args:
        logits: [n, c].
        gold: [n], class indices.
    """
    scores = logits.astype(np.float64)
    of_gold = scores[np.arange(len(gold)), gold].mean()

    def slope(inverse: float) -> float:
        return float((_softmax(scores, 1 / inverse) * scores).sum(axis=1).mean() - of_gold)

    return round(1.0 / _bisect(slope, 1 / 20, 4.0), 3)


def _bisect(slope: Any, low: float, high: float) -> float:
    """Find the root of an increasing function in [low, high], or the end nearest to it."""
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def _softmax(scores: NDArray[Any], temperature: float) -> Floats:
    return softmax_many(scores.astype(np.float64), temperature).astype(np.float64, copy=False)


def _nll(of_gold: Floats) -> float:
    return float(-np.log(np.maximum(of_gold, _TINY)).mean())
